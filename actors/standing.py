"""How a job stands: which rows of its plan lie in its output."""

from __future__ import annotations

from collections.abc import Collection
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from actors.objects import join_uri
from actors.progress import Progress
from actors.rows import read_rows
from longreel.schemas import SEGMENTS, VIDEOS


@dataclass(frozen=True)
class Work:
    """What a run is about.

    Attributes:
        segments, videos: ids of what it makes rows of, where they are missing.
        others: ids of further videos, whose rows count as they are.
    """

    totals: Progress
    segments: frozenset[str]
    videos: frozenset[str]
    others: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Standing:
    """What of the work is done.

    Attributes:
        progress: the totals, and what lies in the output.
        finished: ids of all segments and videos that have rows, of other work as well.
        repeated: whether an id has more than one row.
    """

    progress: Progress
    finished: set[str]
    repeated: bool


def stand(output: str, work: Work) -> Standing:
    """Read how far ``work`` is.

    Raises:
        StorageError: the rows cannot be read.
    """
    progress = deepcopy(work.totals)
    columns = ["segment_id", "status", "start_s", "end_s", "n_frames"]
    segments = read_rows(join_uri(output, "segments"), SEGMENTS, columns=columns)
    videos = read_rows(join_uri(output, "videos"), VIDEOS, columns=["video_id", "status"])
    for row in _mine(segments, "segment_id", work.segments):
        progress.segments[row["status"]] += 1
        progress.frames += row["n_frames"]
        progress.video_seconds += row["end_s"] - row["start_s"]
    for row in _mine(videos, "video_id", work.videos | work.others):
        progress.videos[row["status"]] += 1
    finished = {row["segment_id"] for row in segments} | {row["video_id"] for row in videos}
    return Standing(progress, finished, len(finished) < len(segments) + len(videos))


def _mine(rows: list[dict[str, Any]], key: str, ids: Collection[str]) -> list[dict[str, Any]]:
    """Rows whose id is among ``ids``, each id once."""
    return list({row[key]: row for row in rows if row[key] in ids}.values())
