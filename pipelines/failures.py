"""What ends a job, as the one line that the user sees."""

from __future__ import annotations

import re

from longreel.errors import LongreelError

#: Ray carries an error of ours from process to process as text, its class and line in it.
_OURS = re.compile(r"^\s*longreel\.errors\.\w+: (.+)$", re.MULTILINE)


def job_failure(failure: BaseException) -> LongreelError:
    """The error of a job that ``failure``, in whatever Ray wrapped it, has ended."""
    said = str(failure).strip()
    if ours := _OURS.findall(said):
        reason = ours[-1].strip()
    elif type(failure).__module__ == LongreelError.__module__:
        reason = said
    else:
        lines = said.splitlines() or [""]
        reason = f"{type(failure).__name__}: {lines[-1]}"
    return LongreelError(f"the job failed: {reason}; the same command goes on from here")
