"""Rows that a run which was taken for dead wrote a second time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from actors.rowfiles import replace_rows
from actors.rows import read_rows
from longreel.schemas import SEGMENTS, VIDEOS
from pipelines.repeated import undo_repeated


def put(file: Path, schema: pa.Schema, *told: dict[str, Any]) -> None:
    rows = [{**dict.fromkeys(schema.names), **row} for row in told]
    replace_rows(str(file), pa.Table.from_pylist(rows, schema=schema))


def test_the_row_written_last_stays_and_what_was_made_of_both_goes(tmp_path: Path) -> None:
    """Guards against a video's row of doubled segments that nothing makes anew, a file left
    without rows that ends the job, and rows that go although nobody makes them anew."""

    def segments(job: str, *names: str) -> list[dict[str, Any]]:
        return [{"job_id": job, "segment_id": name, "video_id": name[0]} for name in names]

    folder = tmp_path / "segments"
    put(folder / "part-1-a.parquet", SEGMENTS, *segments("first", "u0", "v0"))
    put(folder / "part-2-b.parquet", SEGMENTS, *segments("stalled", "v1", "w0", "y0"))
    put(folder / "part-3-c.parquet", SEGMENTS, *segments("last", "w0", "v1", "x0", "y0"))
    videos = tmp_path / "videos"
    put(videos / "part-4-d.parquet", VIDEOS, *({"video_id": name} for name in "uvxyz"))
    put(videos / "part-5-e.parquet", VIDEOS, *({"video_id": name} for name in "wxz"))
    untouched = (folder / "part-1-a.parquet").stat()
    for _ in range(2):
        undo_repeated(str(tmp_path), frozenset("uvwx"))
        found = read_rows(str(folder), SEGMENTS, columns=["job_id", "segment_id"])
        assert {row["segment_id"]: row["job_id"] for row in found} == {
            **dict.fromkeys(("u0", "v0"), "first"),
            **dict.fromkeys(("v1", "w0", "x0", "y0"), "last"),
        }
        assert len(found) == 6
        left = [row["video_id"] for row in read_rows(str(videos), VIDEOS)]
        assert left == ["u", "y", "z"]
    assert (folder / "part-1-a.parquet").stat().st_mtime_ns == untouched.st_mtime_ns
