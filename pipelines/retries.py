"""Rows that failed for no fault of their video are taken out, so that the next run tries again."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from actors.deaths import WORKER_DIED
from actors.objects import join_uri
from actors.rows import drop_rows, read_rows
from longreel.errors import VideoError, kind_of
from longreel.schemas import FAILED, PROBE, SEGMENTS, VIDEOS

_Row = dict[str, Any]


@dataclass(frozen=True)
class Retry:
    """Ids of the rows to take out."""

    segment_ids: frozenset[str]
    video_ids: frozenset[str]


def to_retry(probes: Sequence[_Row], segments: Sequence[_Row], videos: Sequence[_Row]) -> Retry:
    """What to try again, now that the probes say what the sources are today.

    A segment, when its video can be opened and it failed through the store or the model service
    (the store may have lost an object and found it again). A video, with such a segment, when
    it can be opened and joining its segments ended its process, or when not a segment of it came
    out and its probe says something else today.

    Args:
        probes: this run's PROBE rows.
        segments: SEGMENTS rows with status failed: ``segment_id``, ``video_id``, ``error``.
        videos: VIDEOS rows with status failed: ``video_id``, ``uri``, ``error``, ``n_segments``.
    """
    today = {row["uri"]: row for row in probes}
    usable = {row["video_id"] for row in probes if not row["error"]}
    changed = set()
    for video in videos:
        probed = today.get(video["uri"])
        if probed is None:
            continue
        same = probed["video_id"] == video["video_id"]
        died = kind_of(video["error"]) == WORKER_DIED and not probed["error"]
        told = video["n_segments"] and not died
        if not (same and (told or probed["error"] == video["error"])):
            changed.add(video["video_id"])
    again = [
        row
        for row in segments
        if row["video_id"] in changed - usable
        or (row["video_id"] in usable and kind_of(row["error"]) not in VideoError.KINDS)
    ]
    touched = {row["video_id"] for row in again}
    return Retry(frozenset(row["segment_id"] for row in again), frozenset(touched | changed))


def told_without(segments: Sequence[_Row], segment_ids: Collection[str]) -> list[str]:
    """Ids of the segments that follow one of ``segment_ids`` in their video.

    Args:
        segments: SEGMENTS rows: ``segment_id``, ``video_id``, ``segment_index``.
    """
    first: dict[str, int] = {}
    for row in segments:
        if row["segment_id"] in segment_ids:
            index = row["segment_index"]
            first[row["video_id"]] = min(index, first.get(row["video_id"], index))
    return [
        row["segment_id"]
        for row in segments
        if row["segment_index"] > first.get(row["video_id"], row["segment_index"])
    ]


def drop_retried(output: str, probes: Sequence[_Row], mode: str) -> None:
    """Take out of ``output`` the rows that this run shall write anew.

    Args:
        mode: in ``stream`` what follows a segment in its video was told without it, and goes too.
    """
    folders = [join_uri(output, name) for name in ("segments", "videos")]
    failed = pc.field("status") == FAILED
    retry = to_retry(
        probes,
        read_rows(folders[0], SEGMENTS, columns=["segment_id", "video_id", "error"], where=failed),
        read_rows(
            folders[1], VIDEOS, columns=["video_id", "uri", "error", "n_segments"], where=failed
        ),
    )
    if not retry.video_ids:
        return
    videos = pc.is_in(pc.field("video_id"), pa.array(sorted(retry.video_ids), pa.string()))
    unopened = pc.field("error").is_valid()
    # Failed segments last: by them the next run finds the rest again if this one is killed here.
    drop_rows(folders[1], VIDEOS, videos, ["video_id"])
    probed = join_uri(output, "_longreel", "videos")
    drop_rows(probed, PROBE, videos & unopened, ["video_id", "error"])
    if mode == "stream":
        columns = ["segment_id", "video_id", "segment_index"]
        rows = read_rows(folders[0], SEGMENTS, columns=columns, where=videos)
        _drop_segments(folders[0], told_without(rows, retry.segment_ids))
    _drop_segments(folders[0], retry.segment_ids)


def _drop_segments(folder: str, segment_ids: Collection[str]) -> None:
    named = pc.is_in(pc.field("segment_id"), pa.array(sorted(segment_ids), pa.string()))
    drop_rows(folder, SEGMENTS, named, ["segment_id"])
