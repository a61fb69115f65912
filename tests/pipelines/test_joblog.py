"""A job's log as users see it, and the one line that says why a run failed."""

from __future__ import annotations

import pytest

from pipelines.joblog import JobLog, reason

ENTRYPOINT = "exec python -m longreel.cli summarize '--prompt=one\ntwo' -- a"
RAW = (
    "2026-01-31 12:00:00,123\tINFO job_manager.py:560 -- Runtime env is setting up.\n"
    f"Running entrypoint for job nightly: {ENTRYPOINT}\n"
    "finding videos\n"
    "two\n"
    "\n"
    "nightly took 4.0 s; rows in s3://rows"
)
SAID = "finding videos\ntwo\n\nnightly took 4.0 s; rows in s3://rows"


@pytest.mark.parametrize("size", [1, 7, 50, 10_000])
def test_only_what_the_job_said(size: int) -> None:
    """Guards against Ray's lines in a job's log, however the log is cut on its way."""
    log = JobLog("nightly", ENTRYPOINT)
    pieces = [RAW[i : i + size] for i in range(0, len(RAW), size)]
    assert "".join(map(log.take, pieces)) + log.end() == SAID


def test_a_complaint_of_rays_stays() -> None:
    """Guards against a failure that the filter takes with it."""
    bad = "2026-01-31 12:00:00,123\tWARNING job_manager.py:9 -- Failed to start supervisor\n"
    assert JobLog("nightly", ENTRYPOINT).take(bad) == bad


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        (
            "Job entrypoint command failed with exit code 1, last available logs (truncated to "
            "20,000 chars):\nprobing: 3 videos\nlongreel: the job failed: X: y\n",
            "the job failed: X: y",
        ),
        (
            "Job entrypoint command failed with exit code -9, last available logs (truncated to "
            "20,000 chars):\nprobing: 3 videos\nKilled\n",
            "Killed",
        ),
        (
            "Job entrypoint command failed with exit code -9. No logs available.",
            "Job entrypoint command failed with exit code -9. No logs available.",
        ),
        (
            "runtime_env setup failed: no space\nTraceback\n  x\n",
            "runtime_env setup failed: no space",
        ),
        ("", ""),
    ],
)
def test_why_it_failed(message: str, wanted: str) -> None:
    """Guards against a page of traceback where one line is wanted, or the wrong line."""
    assert reason(message) == wanted
