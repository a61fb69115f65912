"""Videos' rows out of their segments' rows, as a reducer reads them."""

from __future__ import annotations

import tracemalloc
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray

from actors.deaths import MOST_DEATHS, Deaths
from actors.rowfiles import replace_rows
from longreel.schemas import FAILED, OK, SEGMENTS
from pipelines import videos
from pipelines.videos import REDUCE, ReduceOrder, VideoReducer, at_once
from serve.served import Served
from tests.pipelines.direct import Direct, Row, Summarizer, plan_of, segment


class _ProcessEndedError(BaseException):
    """As the out-of-memory killer ends a reducer: nothing catches it."""


class Taken:
    """A ledger that keeps the rows in memory, each once and without its pictures."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        deaths = Deaths()
        self.enter, self.leave = deaths.begin, deaths.end

    def add_video(self, row: Row) -> None:
        if row["video_id"] not in [known["video_id"] for known in self.rows]:
            self.rows.append(row | {"keyframes": len(row["keyframes"])})


def reduced(
    folder: Path,
    probes: list[Row],
    monkeypatch: pytest.MonkeyPatch,
    taken: Taken | None = None,
) -> list[Row]:
    """The rows of one batch of videos, each said to be in any file."""
    monkeypatch.setattr(ray, "get", lambda answer: answer)
    taken, endpoint = taken or Taken(), Summarizer()
    ledger: Any = Direct(taken)
    reducer = VideoReducer(ReduceOrder(str(folder), {}, Served("tiny", "r", 0.2), endpoint), ledger)  # type: ignore[arg-type]
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


def test_a_video_that_ends_its_reducer_fails_alone_and_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against a job that never ends, since Ray starts what died anew without end, and
    against good videos of the same batch that fail with the bad one."""
    probes, plan = plan_of("small", "large", "other")
    put(tmp_path / "segments" / "part-1.parquet", [segment(p) for p in plan])
    made = VideoReducer._row

    def row_or_end(reducer: VideoReducer, probed: Row, segments: list[Row]) -> Row:
        if probed["video_id"] == "large":
            raise _ProcessEndedError
        return made(reducer, probed, segments)

    monkeypatch.setattr(VideoReducer, "_row", row_or_end)
    taken, ended = Taken(), 0
    while ended < MOST_DEATHS + 3:
        try:
            reduced(tmp_path, probes, monkeypatch, taken)
            break
        except _ProcessEndedError:
            ended += 1
    assert ended == MOST_DEATHS + 1  # the first in company, which is nobody's fault
    found = {row["video_id"]: row for row in taken.rows}
    large = found.pop("large")
    assert {(row["status"], row["error"]) for row in found.values()} == {(OK, None)}
    assert (large["status"], large["n_failed_segments"], large["n_frames"]) == (FAILED, 0, 16)
    assert large["error"].startswith("WorkerDied: joining its segments ended its process 8 times")


def test_groups_are_bounded_by_their_segments() -> None:
    """Guards against a video left out or parted, and a read for each of many short ones."""
    probes = [{"n_segments": n} for n in (3, 4, 0, 1, 9, 0, 8, 1)]
    groups = at_once(probes, most=8)
    assert [probe for group in groups for probe in group] == probes
    assert [[probe["n_segments"] for probe in group] for group in groups] == [
        [3, 4, 0, 1],
        [9],
        [0, 8],
        [1],
    ]
    assert len(at_once([{"n_segments": 1}] * 64)) == 1
    assert at_once([]) == []


def test_memory_does_not_grow_with_the_videos_of_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against a reducer that holds the pictures of 64 long videos."""
    n_segments = 6
    monkeypatch.setattr(videos, "at_once", partial(at_once, most=n_segments))
    probes, plan = plan_of(*"abcde", n_segments=n_segments)
    for probe in probes:
        mine = [p for p in plan if p["video_id"] == probe["video_id"]]
        rows = [segment(p, keyframes=[picture(p["start_s"])]) for p in mine]
        put(tmp_path / "segments" / f"part-{probe['video_id']}.parquet", rows)
    reduced(tmp_path, probes[:1], monkeypatch)
    peaks = []
    for some in (probes[:1], probes):
        tracemalloc.start()
        assert {row["keyframes"] for row in reduced(tmp_path, some, monkeypatch)} == {n_segments}
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert n_segments * len(picture(0.0)["jpeg"]) < peaks[0]
    assert peaks[1] < 1.5 * peaks[0]


def picture(time_s: float) -> Row:
    return {"time_s": time_s, "score": 1.0, "jpeg": bytes(64 * 1024), "uri": None}
