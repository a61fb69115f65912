"""What a job wrote, as the rows that ``show`` and ``report`` draw."""

from __future__ import annotations

from typing import Any

from actors.objects import join_uri, normalize_uri
from actors.rows import parquet_files, read_rows
from longreel.errors import UsageError
from longreel.schemas import SEGMENTS, VIDEOS


def load_results(dest: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Video rows by uri, and segment rows by uri and index.

    Raises:
        UsageError: there are no results at ``dest``.
    """
    dest = normalize_uri(dest)
    folders = [join_uri(dest, name) for name in ("videos", "segments")]
    if not any(parquet_files(folder) for folder in folders):
        raise UsageError(f"no results in {dest}: expected Parquet files in videos/ or segments/")
    videos = read_rows(folders[0], VIDEOS)
    segments = read_rows(folders[1], SEGMENTS)
    videos.sort(key=lambda row: row["uri"])
    segments.sort(key=lambda row: (row["uri"], row["segment_index"]))
    return videos, segments
