"""Rows of a source that has changed since: what an earlier run said of it is taken out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from actors.objects import join_uri
from actors.rows import drop_rows, read_table
from longreel.schemas import FAILED, PROBE, SEGMENTS, VIDEOS


def still_unusable(output: str, probes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The probes without those that found nothing where an earlier run had found a video.

    A source that is gone or out of reach does not undo what was made of it.
    """
    rows = read_table(join_uri(output, "videos"), VIDEOS, columns=["uri", "status"])
    good = set(rows.filter(pc.field("status") != FAILED)["uri"].to_pylist())
    return [row for row in probes if not (row["error"] and row["uri"] in good)]


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
