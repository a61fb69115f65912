"""Videos' rows out of their segments' rows, as a reducer reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray

from actors.rowfiles import replace_rows
from longreel.schemas import OK, SEGMENTS
from pipelines.videos import REDUCE, ReduceOrder, VideoReducer
from tests.pipelines.direct import Direct, Row, Summarizer, plan_of, segment


class Taken:
    """A ledger that keeps the rows in memory."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def add_video(self, row: Row) -> None:
        self.rows.append(row)


def reduced(folder: Path, probes: list[Row], monkeypatch: pytest.MonkeyPatch) -> list[Row]:
    """The rows of one batch of videos, each said to be in any file."""
    monkeypatch.setattr(ray, "get", lambda answer: answer)
    taken, endpoint = Taken(), Summarizer()
    ledger: Any = Direct(taken)
    reducer = VideoReducer(ReduceOrder(str(folder), {}, endpoint), ledger)  # type: ignore[arg-type]
    files = sorted(str(file) for file in (folder / "segments").glob("*.parquet"))
    batch = pa.Table.from_pylist([probe | {"files": files} for probe in probes], schema=REDUCE)
    told = [name for table in reducer(batch) for name in table["video_id"].to_pylist()]
    assert told == [row["video_id"] for row in taken.rows]
    return taken.rows


def put(file: Path, rows: list[Row]) -> None:
    replace_rows(str(file), pa.Table.from_pylist(rows, schema=SEGMENTS))


def test_a_segment_with_two_rows_counts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against frames and costs counted twice, where a row of a run that was taken for dead
    came after all."""
    probes, plan = plan_of("v", n_segments=3)
    put(tmp_path / "segments" / "part-1-a.parquet", [segment(p, n_frames=5) for p in plan[:2]])
    put(tmp_path / "segments" / "part-2-b.parquet", [segment(p) for p in plan])
    (row,) = reduced(tmp_path, probes, monkeypatch)
    assert (row["status"], row["n_frames"], row["decode_s"]) == (OK, 24, 3.0)
    assert row["summary"].count("said in v0.") == 1
