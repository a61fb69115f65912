"""What the rows of a job say together: each video with its segments, and the totals.

Rows are dicts of the schemas ``VIDEOS`` and ``SEGMENTS``; nothing here reads or writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from longreel.readable import number
from longreel.schemas import FAILED, OK, PARTIAL

Row = dict[str, Any]

_FIRST_DAMAGE = re.compile(r"first at ([\d.]+) s")

#: Said of a range that the plan promised and no segment row covers.
NO_ROW = "No segment row covers this range yet."


@dataclass(frozen=True)
class Narration:
    """One narration, at ``time_s`` seconds on the video's clock."""

    time_s: float
    text: str


@dataclass(frozen=True)
class Gap:
    """A range of the video, in seconds, that lacks results, and the error that says why.

    ``lost_s`` seconds of it have none; less than its length where damage lies somewhere within.
    """

    start_s: float
    end_s: float
    why: str
    lost_s: float

    @property
    def whole(self) -> bool:
        """Whether nothing at all came from the range."""
        return self.lost_s >= self.end_s - self.start_s - 1e-6


@dataclass(frozen=True)
class Film:
    """One video row with its segment rows in order."""

    row: Row
    segments: tuple[Row, ...]

    @property
    def status(self) -> str:
        """The row's status; one that no schema knows counts as failed."""
        found = self.row.get("status")
        return str(found) if found in (OK, PARTIAL, FAILED) else FAILED

    @property
    def duration_s(self) -> float:
        """Length in seconds; 0.0 when the video could not be opened."""
        return max(number(self.row.get("duration_s")), 0.0)

    def narrations(self) -> list[Narration]:
        """Return all narrations in order of time."""
        found = [
            Narration(number(each.get("time_s")), str(each.get("text") or ""))
            for segment in self.segments
            for each in segment.get("narrations") or ()
        ]
        return sorted(found, key=lambda each: each.time_s)

    def keyframes(self) -> list[Row]:
        """Return the video's keyframes in order of time; its segments' when it has none itself."""
        found = list(self.row.get("keyframes") or ())
        if not found:
            found = [each for segment in self.segments for each in segment.get("keyframes") or ()]
        return sorted(found, key=lambda each: number(each.get("time_s")))

    def boundaries(self) -> list[float]:
        """Return the times in seconds at which one segment ends and the next begins."""
        return [number(segment.get("start_s")) for segment in self.segments[1:]]

    def gaps(self) -> list[Gap]:
        """Return the ranges without results, in order, neighbours with one cause joined."""
        found = [gap for segment in self.segments if (gap := _unread(segment, self.row))]
        if len(self.segments) < number(self.row.get("n_segments")):
            found += self._uncovered()
        elif not self.segments and self.status == FAILED and self.duration_s:
            why = str(self.row.get("error") or "")
            found.append(Gap(0.0, self.duration_s, why, self.duration_s))
        joined: list[Gap] = []
        for gap in sorted(found, key=lambda each: each.start_s):
            last = joined[-1] if joined else None
            touches = last is not None and gap.start_s <= last.end_s + 1e-6
            if last and touches and (last.why, last.whole) == (gap.why, gap.whole):
                end = max(last.end_s, gap.end_s)
                joined[-1] = Gap(last.start_s, end, gap.why, last.lost_s + gap.lost_s)
            else:
                joined.append(gap)
        return joined

    def seen_s(self) -> float:
        """Return how many seconds of the video have results."""
        return max(self.duration_s - sum(gap.lost_s for gap in self.gaps()), 0.0)

    def _uncovered(self) -> list[Gap]:
        # A failed video says itself why its rows are missing; any other one is still being worked.
        why = str(self.row.get("error") or "") if self.status == FAILED else NO_ROW
        edge, holes = 0.0, []
        for segment in self.segments:
            start, end = number(segment.get("start_s")), number(segment.get("end_s"))
            if start > edge + 1e-6:
                holes.append(Gap(edge, start, why, start - edge))
            edge = max(edge, end)
        if self.duration_s > edge + 1e-6:
            holes.append(Gap(edge, self.duration_s, why, self.duration_s - edge))
        return holes


def _unread(segment: Row, video: Row) -> Gap | None:
    status = segment.get("status")
    if status == OK:
        return None
    start, end = number(segment.get("start_s")), number(segment.get("end_s"))
    fps = number(segment.get("fps")) or number(video.get("fps"))
    why = str(segment.get("error") or "")
    seen = number(segment.get("n_frames")) / fps if status == PARTIAL and fps > 0 else 0.0
    if why.startswith("Truncated"):
        # All that comes before a missing end is kept, so the frames say where it begins.
        start, seen = min(start + seen, end), 0.0
    lost = max(end - start - seen, 0.0)
    if damage := _FIRST_DAMAGE.search(why):
        start = min(max(start, float(damage[1])), max(start, end - lost))
    return Gap(start, end, why, lost) if lost > 1e-6 else None


@dataclass(frozen=True)
class Figures:
    """Totals of a job; times in seconds.

    ``seen_s`` is what ``duration_s`` leaves without the ranges from which nothing came.
    """

    videos: int
    ok: int
    partial: int
    failed: int
    duration_s: float
    seen_s: float
    frames: int
    narrations: int
    vision_tokens: int
    processed_token_layers: int
    kv_bytes: int
    decode_s: float
    model_s: float


def films(videos: Iterable[Row], segments: Iterable[Row]) -> tuple[list[Film], int]:
    """Give each video its segments, in order.

    Returns the films in the order of ``videos`` and the number of segment rows whose video has
    no row: of a job that has not finished yet.
    """
    belong: dict[tuple[Any, Any], list[Row]] = {}
    for segment in segments:
        belong.setdefault((segment.get("job_id"), segment.get("video_id")), []).append(segment)
    found = []
    for row in videos:
        own = belong.pop((row.get("job_id"), row.get("video_id")), [])
        own.sort(key=lambda each: (number(each.get("start_s")), number(each.get("segment_index"))))
        found.append(Film(row, tuple(own)))
    return found, sum(map(len, belong.values()))


def total(found: Sequence[Film]) -> Figures:
    """Add up the films."""
    status = [film.status for film in found]

    def summed(column: str) -> float:
        return sum(number(film.row.get(column)) for film in found)

    return Figures(
        videos=len(found),
        ok=status.count(OK),
        partial=status.count(PARTIAL),
        failed=status.count(FAILED),
        duration_s=sum(film.duration_s for film in found),
        seen_s=sum(film.seen_s() for film in found),
        frames=round(summed("n_frames")),
        narrations=sum(len(s.get("narrations") or ()) for film in found for s in film.segments),
        vision_tokens=round(summed("vision_tokens")),
        processed_token_layers=round(summed("processed_token_layers")),
        kv_bytes=round(summed("kv_bytes")),
        decode_s=summed("decode_s"),
        model_s=summed("model_s"),
    )
