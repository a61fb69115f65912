"""Rows of a source that has changed since: what an earlier run said of it is taken out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from actors.objects import join_uri
from actors.rows import drop_rows, read_rows
from longreel.schemas import FAILED, PROBE, SEGMENTS, VIDEOS


def still_unusable(
    output: str, probes: Sequence[dict[str, Any]]
) -> tuple[list[dict[str, Any]], frozenset[str]]:
    """The probes without those that found nothing where an earlier run had found a video.

    A source that is gone or out of reach does not undo what was made of it.

    Returns:
        The other probes, and the ids of the video rows that stand for those left out.
    """
    columns = ["uri", "video_id"]
    rows = read_rows(
        join_uri(output, "videos"), VIDEOS, columns=columns, where=pc.field("status") != FAILED
    )
    good = {row["uri"]: row["video_id"] for row in rows}
    lost = {row["uri"] for row in probes if row["error"]} & good.keys()
    left = [row for row in probes if row["uri"] not in lost]
    return left, frozenset(good[uri] for uri in lost)


def drop_superseded(output: str, probes: Sequence[dict[str, Any]]) -> None:
    """Take out rows of older versions of the probed objects: one source, one video row."""
    usable = [row for row in probes if not row["error"]]
    uris = pa.array([row["uri"] for row in usable], pa.string())
    ids = pa.array([row["video_id"] for row in usable], pa.string())
    stale = pc.is_in(pc.field("uri"), uris) & ~pc.is_in(pc.field("video_id"), ids)
    for folder, schema in (
        (join_uri(output, "videos"), VIDEOS),
        (join_uri(output, "segments"), SEGMENTS),
        (join_uri(output, "_longreel", "videos"), PROBE),
    ):
        drop_rows(folder, schema, stale, ["uri", "video_id"])
