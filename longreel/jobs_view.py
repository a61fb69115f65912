"""Jobs on a cluster as the terminal shows them: a table of all, an account of one."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Protocol

from rich.table import Table
from rich.text import Text

from longreel import readable
from longreel.progress import Counts
from longreel.schemas import OK


class Sent(Protocol):
    """What is shown of a run (``pipelines.submission.Run`` has it).

    Attributes:
        number: of the run among those of its job, from 1.
        submission_id: by which Ray knows it.
        output: uri of the folder that the job writes.
        state, ray_status: how it stands, in our words and in Ray's.
        reason: why it ended as it did; empty where there is nothing to say.
        submitted_at, ended_at: seconds since 1970.
    """

    @property
    def job_id(self) -> str: ...
    @property
    def number(self) -> int: ...
    @property
    def submission_id(self) -> str: ...
    @property
    def output(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def ray_status(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def submitted_at(self) -> float: ...
    @property
    def ended_at(self) -> float | None: ...


def jobs_table(runs: Sequence[Sent], now: float) -> Table:
    """One line for each job; ``now`` is in seconds since the epoch."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("job", "state", "runs", "submitted", "took", "output"):
        table.add_column(name, overflow="fold", no_wrap=name in ("submitted", "took"))
    for run in runs:
        table.add_row(
            Text(readable.visible(run.job_id)),
            Text(run.state),
            Text(str(run.number)),
            Text(_moment(run.submitted_at)),
            Text(_took(run, now)),
            Text(readable.visible(run.output)),
        )
    return table


def account(run: Sent, progress: Counts | None, unseen: str | None, now: float) -> Iterator[str]:
    """The state of one run, line by line.

    Args:
        progress: what lies in its output, None where there is no plan yet.
        unseen: why the output could not be read, if so.
        now: seconds since the epoch.
    """
    told = [
        ("job", run.job_id),
        ("state", f"{run.state} (Ray: {run.ray_status} as {run.submission_id})"),
        ("output", run.output),
        ("submitted", _moment(run.submitted_at)),
        ("took", _took(run, now)),
    ]
    if unseen:
        told.append(("progress", f"unknown, {unseen}"))
    elif progress is None:
        told.append(("progress", "no plan seen there yet"))
    else:
        told.append(("segments", _counted(progress.segments, progress.n_segments)))
        told.append(("videos", _counted(progress.videos, progress.n_videos)))
    if run.reason:
        told.append(("reason", run.reason))
    for name, value in told:
        yield f"{name:<10} {readable.visible(value)}"


def done_of(progress: Counts | None) -> str:
    """How much of a plan has rows, as words."""
    if progress is None:
        return "nothing is written yet"
    return f"{sum(progress.segments.values())}/{progress.n_segments} segments are written"


def _counted(by_status: dict[str, int], planned: int) -> str:
    parts = [f"{n} {status}" for status, n in sorted(by_status.items()) if n and status != OK]
    return ", ".join([f"{sum(by_status.values())}/{planned} done", *parts])


def _moment(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def _took(run: Sent, now: float) -> str:
    return readable.effort((run.ended_at or now) - run.submitted_at)
