"""What the service of jobs says by itself: no cluster is there."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from actors.rowfiles import write_rows
from longreel.errors import UsageError
from longreel.schemas import PROBE
from pipelines import submission
from pipelines.jobs_service import JobsService
from pipelines.submission import Run


def test_what_is_no_uri_is_the_senders_fault() -> None:
    """Guards against 503, after which the same request is sent again, for what can never work."""
    service = JobsService("http://127.0.0.1:9")
    for sources, output in ((["s3://_/x"], "/rows"), (["/videos/"], "s3://_/rows")):
        with pytest.raises(UsageError, match="no valid bucket name"):
            service.submit({"sources": sources, "output": output})


class OneRunEach:
    """A cluster with a run of each job, which has ended."""

    def __init__(self, outputs: dict[str, str]) -> None:
        self._outputs = outputs

    def runs(self) -> list[Run]:
        return [
            Run(job, 1, job, output, submission.FINISHED, "SUCCEEDED", 0, "", "", 1.0, 2.0)
            for job, output in self._outputs.items()
        ]


def test_rows_that_cannot_be_read_are_their_own_jobs_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards the list of all jobs, and whoever's limit is counted by it, against one output."""
    outputs = {name: str(tmp_path / name) for name in ("older", "damaged", "none", "good")}
    folders = {name: Path(output, "_longreel", "videos") for name, output in outputs.items()}
    write_rows(str(folders["good"]), [dict.fromkeys(PROBE.names) | {"video_id": "v"}], PROBE)
    write_rows(str(folders["older"]), [{"id": 1}], pa.schema([("id", pa.int64())]))
    for name, data in (("damaged", b"PAR1" + bytes(40)), ("none", b"no table")):
        folders[name].mkdir(parents=True)
        (folders[name] / "x.parquet").write_bytes(data)
    service = JobsService("http://127.0.0.1:9")
    monkeypatch.setattr(service, "_jobs", lambda: OneRunEach(outputs))
    jobs = {job["id"]: job for job in service.list()}
    assert {name for name, job in jobs.items() if job["progress"]} == {"good"}
    for name in ("older", "damaged", "none"):
        assert jobs[name]["status"] == "succeeded"
        assert jobs[name]["error"].startswith("its rows cannot be read: ")
        found = service.get(name)
        assert found == jobs[name]
