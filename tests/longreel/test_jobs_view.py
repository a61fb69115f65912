"""Jobs as the terminal shows them."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, replace

import pytest
from rich.console import Console

from actors.progress import Progress
from longreel.jobs_view import account, done_of, jobs_table

NOW = 2_000_000_000.0


@dataclass(frozen=True)
class Shown:
    """A run as the view reads it."""

    job_id: str = "nightly"
    number: int = 2
    submission_id: str = "nightly-2"
    output: str = "s3://rows/2026"
    state: str = "running"
    ray_status: str = "RUNNING"
    reason: str = ""
    submitted_at: float = NOW - 125
    ended_at: float | None = None


def printed(*runs: Shown, width: int = 10_000) -> list[str]:
    file = io.StringIO()
    Console(file=file, width=width).print(jobs_table(runs, NOW))
    return [line.rstrip() for line in file.getvalue().splitlines()]


def test_one_line_a_job() -> None:
    """Guards against a table that cannot be read by a person or cut by a script."""
    ended = Shown("[bold]x", 1, state="finished", output="/r/[red]", ended_at=NOW - 120.5)
    head, first, second = printed(Shown(), ended)
    assert head.split() == ["job", "state", "runs", "submitted", "took", "output"]
    assert re.fullmatch(r"nightly +running +2 +\S+ \S+ +2 min 5 s +s3://rows/2026", first)
    assert re.fullmatch(r"\[bold\]x +finished +1 +\S+ \S+ +4.5 s +/r/\[red\]", second)


def test_a_narrow_terminal_loses_nothing() -> None:
    """Guards against an id that is cut where it has to be typed again."""
    lines = printed(replace(Shown(), job_id="j" * 30), width=70)
    assert "".join(lines).count("j") == 30 + 1  # the heading has one


def test_no_jobs() -> None:
    """Guards against an empty table that looks like a failure."""
    assert len(printed()) == 1


def account_of(run: Shown, *progress: object) -> dict[str, str]:
    told, unseen = progress or (None, None)
    lines = account(run, told, unseen, NOW)  # type: ignore[arg-type]
    return {line[:10].strip(): line[11:] for line in lines}


def test_the_account_of_a_job() -> None:
    """Guards against progress without its failures, and a failure without its reason."""
    progress = Progress(n_videos=3, n_segments=10)
    progress.segments.update(ok=4, failed=1, partial=2)
    told = account_of(replace(Shown(), state="failed", reason="no\nspace\x1b[2J"), progress, None)
    assert told["state"] == "failed (Ray: RUNNING as nightly-2)"
    assert told["segments"] == "7/10 done, 1 failed, 2 partial"
    assert told["videos"] == "0/3 done"
    assert told["reason"] == "no\\x0aspace\\x1b[2J"


@pytest.mark.parametrize(
    ("unseen", "wanted"),
    [(None, "no plan seen there yet"), ("NoCredentials: x", "unknown, NoCredentials: x")],
)
def test_progress_that_is_not_there(unseen: str | None, wanted: str) -> None:
    """Guards against zero shown for what is unknown."""
    assert account_of(Shown(), None, unseen)["progress"] == wanted


def test_what_a_cancel_keeps() -> None:
    """Guards against a user who believes that cancelling throws rows away."""
    progress = Progress(n_segments=10)
    progress.segments.update(ok=4, failed=1)
    assert done_of(progress) == "5/10 segments are written"
    assert done_of(None) == "nothing is written yet"
