"""The one line that a failed job ends with."""

from __future__ import annotations

import pytest

from longreel.errors import LongreelError, StorageError
from pipelines.failures import job_failure

WRAPPED = """ray::MapBatches(SegmentWorker)() (pid=1, ip=127.0.0.1)
  File "worker.py", line 1, in __call__
ray.exceptions.RayTaskError(StorageError): ray::Ledger.add_segment() (pid=2)
  File "rowfiles.py", line 64, in write_rows
longreel.errors.StorageError: ENOSPC: cannot write /d/part: No space left on device

The above exception was the direct cause of the following exception:

ray.exceptions.UserCodeException: UDF failed to process a data block."""

TAKEN_OVER = """ray::Ledger.flush() (pid=2, ip=127.0.0.1)
  File "lease.py", line 107, in require
longreel.errors.LeaseLostError: /d was taken over by process 9 on far; it writes nothing more"""


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (StorageError("NotFound", "cannot read /x: no such file"), "NotFound: cannot read /x: no"),
        (LongreelError("it is late"), "it is late"),
        (RuntimeError(WRAPPED), "ENOSPC: cannot write /d/part: No space left on device"),
        (RuntimeError(TAKEN_OVER), "/d was taken over by process 9 on far"),
        (RuntimeError("first\nlast"), "RuntimeError: last"),
        (RuntimeError(), "RuntimeError: "),
    ],
)
def test_the_line_is_ours_whatever_it_came_in(failure: Exception, reason: str) -> None:
    """Guards against a class name of Ray's where the user needs the path and the cause."""
    said = str(job_failure(failure))
    assert said.startswith(f"the job failed: {reason}")
    assert said.endswith("; the same command goes on from here")
    assert "\n" not in said
