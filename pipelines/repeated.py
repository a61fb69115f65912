"""Rows that stand twice, because a write of a run that was taken for dead landed after all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from actors.objects import join_uri
from actors.rows import drop_repeated, drop_rows, read_rows
from longreel.schemas import SEGMENTS, VIDEOS


def undo_repeated(output: str, ours: frozenset[str]) -> None:
    """Leave one row of each segment and video, and none of a video that must be made anew.

    A video's row may have been made of both rows of a segment, or of the one that goes. Of two
    rows of a video neither says of which segments it was made.

    Args:
        ours: ids of the videos that this run makes; others keep the row that was written last.
    """
    folders = [join_uri(output, name) for name in ("segments", "videos")]
    segments = read_rows(folders[0], SEGMENTS, columns=["segment_id", "video_id"])
    videos = read_rows(folders[1], VIDEOS, columns=["video_id"])
    twice = _repeated(segments, "segment_id")
    doubtful = _repeated(videos, "video_id")
    doubtful |= {row["video_id"] for row in segments if row["segment_id"] in twice}
    # Segments last: by them the next run finds the videos again if this one is killed here.
    drop_videos(output, doubtful & ours)
    drop_repeated(folders[1], VIDEOS, "video_id")
    drop_repeated(folders[0], SEGMENTS, "segment_id")


def drop_videos(output: str, video_ids: Collection[str]) -> None:
    """Take out the rows of some videos, not those of their segments."""
    named = pc.is_in(pc.field("video_id"), pa.array(sorted(video_ids), pa.string()))
    drop_rows(join_uri(output, "videos"), VIDEOS, named, ["video_id"])


def _repeated(rows: Sequence[dict[str, Any]], key: str) -> set[str]:
    return {name for name, count in Counter(row[key] for row in rows).items() if count > 1}
