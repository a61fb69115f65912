"""The live view of a running job: a progress display in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from longreel.readable import prose

#: Seconds between lines when the output is no terminal.
_LINE_EVERY_S = 10.0


class Counts(Protocol):
    """What the view reads of a job's progress (``actors.progress.Progress`` has it).

    Attributes:
        n_videos, n_segments: of the plan.
        total_video_seconds, video_seconds: of all videos, and of what has a row.
        frames: that have been narrated.
        segments, videos: how many rows have each status.
        failures: a line each.
    """

    n_videos: int
    n_segments: int
    total_video_seconds: float
    video_seconds: float
    frames: int
    failures: list[str]

    @property
    def segments(self) -> dict[str, int]: ...

    @property
    def videos(self) -> dict[str, int]: ...


class ProgressView:
    """Shows a job's phase and progress; use as a context manager and call ``update``."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._phase = ""
        self._last_line = ""
        self._said_at = 0.0
        self._work: tuple[float, float, int] | None = None
        self._failures: list[str] = []

    def __enter__(self) -> ProgressView:
        if self._console.is_terminal:
            self._live = Live(console=self._console, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def update(self, phase: str, counts: Counts) -> None:
        """Show ``counts``; call as often as you like."""
        now = time.monotonic()
        for failure in counts.failures:
            if failure not in self._failures:
                self._failures.append(failure)
                said = Text("  ! " + prose(failure), style="yellow")
                self._console.print(said, highlight=False, soft_wrap=True)
        if phase == "narrating" and self._work is None:
            self._work = (now, counts.video_seconds, counts.frames)
        if self._live:
            self._live.update(self._picture(phase, counts, now))
            return
        line = self._line(phase, counts, now)
        due = now - self._said_at >= _LINE_EVERY_S
        if line != self._last_line and (phase != self._phase or due):
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
            self._said_at, self._last_line = now, line
        self._phase = phase

    def _picture(self, phase: str, counts: Counts, now: float) -> Table:
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(width=22, no_wrap=True)
        table.add_column(ratio=1)
        table.add_column(justify="right", no_wrap=True)
        done = sum(counts.segments.values())
        bar = ProgressBar(
            total=max(1, counts.n_segments), completed=done, pulse=not counts.n_segments
        )
        table.add_row(Text(phase, style="bold"), bar, f"{done}/{counts.n_segments} segments")
        table.add_row("", Text(self._figures(counts, now), style="dim"), self._left(counts, now))
        return table

    def _line(self, phase: str, counts: Counts, now: float) -> str:
        if not counts.n_segments:
            videos = f": {counts.n_videos} videos" if counts.n_videos else ""
            return f"{phase}{videos}"
        done = sum(counts.segments.values())
        parts = [f"{phase}: {done}/{counts.n_segments} segments", self._figures(counts, now)]
        return ", ".join(p for p in [*parts, self._left(counts, now)] if p)

    def _figures(self, counts: Counts, now: float) -> str:
        parts = [f"{sum(counts.videos.values())}/{counts.n_videos} videos"]
        if self._work and now > self._work[0] + 1:
            elapsed = now - self._work[0]
            seconds = counts.video_seconds - self._work[1]
            parts.append(f"{(counts.frames - self._work[2]) / elapsed:.0f} frames/s")
            parts.append(f"{seconds / elapsed:.1f} video-hours an hour")
        failed = counts.segments.get("failed", 0)
        if failed:
            parts.append(f"{failed} segments failed")
        return ", ".join(parts)

    def _left(self, counts: Counts, now: float) -> str:
        if not self._work:
            return ""
        done = counts.video_seconds - self._work[1]
        missing = counts.total_video_seconds - counts.video_seconds
        # The first segments carry the start of every actor: too early to tell.
        if done < 0.1 * (done + missing) or missing <= 0:
            return ""
        left = (now - self._work[0]) / done * missing
        return f"{left:.0f} s left" if left < 90 else f"{left / 60:.0f} min left"
