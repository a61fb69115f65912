"""Rows that are no longer true: of a source that has changed since, or written a second time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from actors.objects import arrow_filesystem, delete_object, join_uri
from actors.rowfiles import replace_rows
from actors.rows import parquet_files, read_table
from longreel.schemas import FAILED, PROBE, SEGMENTS, VIDEOS


def still_unusable(output: str, probes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The probes without those that found nothing where an earlier run had found a video.

    A source that is gone or out of reach does not undo what was made of it.
    """
    rows = read_table(join_uri(output, "videos"), VIDEOS, columns=["uri", "status"])
    good = set(rows.filter(pc.field("status") != FAILED)["uri"].to_pylist())
    return [row for row in probes if not (row["error"] and row["uri"] in good)]


def drop_superseded(output: str, probes: Sequence[dict[str, Any]]) -> None:
    """Take out rows of older versions of the probed objects: one source, one video row.

    Each file is replaced at once or left as it is.
    """
    usable = [row for row in probes if not row["error"]]
    uris = pa.array([row["uri"] for row in usable], pa.string())
    ids = pa.array([row["video_id"] for row in usable], pa.string())
    stale = pc.is_in(pc.field("uri"), uris) & ~pc.is_in(pc.field("video_id"), ids)
    for folder, schema in (
        (join_uri(output, "videos"), VIDEOS),
        (join_uri(output, "segments"), SEGMENTS),
        (join_uri(output, "_longreel", "videos"), PROBE),
    ):
        for uri in parquet_files(folder):
            _drop(uri, schema, stale)


def _drop(uri: str, schema: pa.Schema, stale: pc.Expression) -> None:
    filesystem, path = arrow_filesystem(uri)
    keys = pq.read_table(path, columns=["uri", "video_id"], filesystem=filesystem)
    if not keys.filter(stale).num_rows:
        return
    _keep(uri, pq.read_table(path, schema=schema, filesystem=filesystem).filter(~stale))


def drop_repeated(output: str) -> None:
    """Leave one row of each id, in the first file that has it.

    A run that was taken for dead may have been amid writing a file.
    """
    for folder, schema, key in (
        (join_uri(output, "videos"), VIDEOS, "video_id"),
        (join_uri(output, "segments"), SEGMENTS, "segment_id"),
    ):
        seen: set[str] = set()
        for uri in parquet_files(folder):
            filesystem, path = arrow_filesystem(uri)
            ids = pq.read_table(path, columns=[key], filesystem=filesystem)[key].to_pylist()
            first = {name: i for i, name in reversed(list(enumerate(ids))) if name not in seen}
            seen |= first.keys()
            if len(first) < len(ids):
                rows = pq.read_table(path, schema=schema, filesystem=filesystem)
                _keep(uri, rows.take(sorted(first.values())))


def _keep(uri: str, rows: pa.Table) -> None:
    if rows.num_rows:
        replace_rows(uri, rows)
    else:
        delete_object(uri)
