"""Two commands over the same videos into the same folder, and the one after a killed one."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import uuid
from pathlib import Path

import pytest

from tests.pipelines.conftest import Job
from tests.pipelines.job_runs import (
    JOB_TIMEOUT_S,
    OPTIONS,
    PARTS,
    Run,
    acting,
    assert_same_rows,
    complaint,
    ended,
    gone,
    marked,
    rows,
    started,
)

pytestmark = [pytest.mark.ray, pytest.mark.slow]

TAKEN = "is being worked on"
#: How much later than usual a job may begin because the last one was killed.
TAKEOVER_S = 30.0


def working_after_s(process: subprocess.Popen[str], mark: str) -> float:
    """Waits for a command's first actor of a pass: the seconds that took."""
    begun = time.monotonic()
    while not (acting(mark, "worker") or acting(mark, "reducer")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() - begun < JOB_TIMEOUT_S
        time.sleep(0.1)
    return time.monotonic() - begun


def assert_refused(run: Run, dest: Path) -> None:
    line = complaint(run)
    assert run.code == 1, run.said
    assert TAKEN in line
    assert str(dest) in line


@pytest.mark.long
def test_started_twice_at_the_same_time(job: Job, tmp_path: Path) -> None:
    """Guards against two jobs that both write the rows of one folder."""
    assert job.run.code == 3, job.run.said
    dest = tmp_path / "rows"
    command = ["summarize", *job.sources.arguments, "-o", str(dest), *OPTIONS]
    with started(*command) as first, started(*command) as second:
        runs = sorted([ended(first), ended(second)], key=lambda run: run.code)
    assert job.run.code in {run.code for run in runs}, "\n".join(run.said for run in runs)
    for part, key in PARTS.items():
        ids = [row[key] for row in rows(dest, part)]
        assert len(set(ids)) == len(ids), f"{part}: {len(ids)} rows, {len(set(ids))} ids"
    assert_same_rows(dest, job.dest)
    assert_refused(runs[0], dest)


@pytest.mark.long
def test_a_second_one_is_refused_and_a_killed_one_followed(job: Job, tmp_path: Path) -> None:
    """Guards against a folder taken from the job that works on it, or kept by a dead one."""
    assert job.run.code == 3, job.run.said
    dest = tmp_path / "rows"
    command = ["summarize", *job.sources.arguments, "-o", str(dest), *OPTIONS]
    marks = [uuid.uuid4().hex, uuid.uuid4().hex]
    with started(*command, mark=marks[0]) as holder:
        usual_s = working_after_s(holder, marks[0])
        # So short a job would be over before the other one has loaded its libraries.
        halted = [pid for pid, title in marked(marks[0]).items() if "ray::" in title]
        for pid in halted:
            os.kill(pid, signal.SIGSTOP)
        with started(*command) as other:
            assert_refused(ended(other), dest)
        assert holder.poll() is None, "the job was over before the other one was refused"
        for pid in halted:
            os.kill(pid, signal.SIGCONT)
        os.kill(holder.pid, signal.SIGKILL)
        with started(*command, mark=marks[1]) as following:
            late_s = working_after_s(following, marks[1]) - usual_s
            run = ended(following)
    assert run.code == job.run.code, run.said
    assert late_s < TAKEOVER_S
    assert_same_rows(dest, job.dest)
    assert gone(marks[0], within_s=60) == {}, "processes outlive the killed driver"
