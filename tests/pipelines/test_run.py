"""The passes of a job without a cluster: what a run that was taken for dead still writes amid
them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray

from actors.ledger import RunLedger
from actors.rowfiles import write_rows
from actors.rows import read_rows
from longreel.errors import LeaseLostError
from longreel.schemas import FAILED, OK, PARTIAL, SEGMENTS, VIDEOS
from pipelines import run as passes
from pipelines.ids import Recipe
from pipelines.run import Run
from pipelines.standing import work_of
from pipelines.videos import ReduceOrder
from pipelines.worker import WorkOrder
from serve.served import Served
from tests.pipelines.direct import Direct, Row, Summarizer, plan_of, segment
from tests.pipelines.job_runs import state_of

PROBES, PLAN = plan_of("v", "w")
RECIPE = Recipe("m", "r", "p", 1.0, 2.0, 4.0, 0.0)


class Batches:
    """What ``through`` gives."""

    def __init__(
        self, worker: type, arguments: tuple[Any, ...], batches: Any, schema: pa.Schema, *_: Any
    ) -> None:
        self._worker = worker(*arguments)
        self._tables = [pa.Table.from_pylist(list(batch), schema=schema) for batch in batches]

    def iter_batches(self, **_: Any) -> Iterator[pa.Table]:
        for table in self._tables:
            yield from self._worker(table)


class Narrator:
    """Gives each segment of a batch its row, as ``SegmentWorker`` does."""

    def __init__(self, order: WorkOrder, ledger: Any) -> None:
        self._ledger = ledger

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        for planned in batch.to_pylist():
            self._ledger.add_segment.remote(segment(planned))
            yield batch


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Run]:
    """Begins a run on the output as it stands."""
    monkeypatch.setattr(ray, "get", lambda answer: answer)
    monkeypatch.setattr("actors.lease.require", lambda *_: None)
    monkeypatch.setattr(passes, "through", Batches)
    monkeypatch.setattr(passes, "SegmentWorker", Narrator)
    monkeypatch.setattr(passes, "_POLL_S", 0.001)

    def begin() -> Run:
        work = work_of(PROBES, PLAN)
        ledger: Any = Direct(RunLedger(str(tmp_path), work, "token", "job"))
        return Run(str(tmp_path), "token", work, ledger, 1, lambda *_: None, set())

    return begin


def carried_out(run: Run, when_asked: Callable[[], None] = lambda: None) -> list[Row]:
    """Both passes; the videos' rows by id, with the segments' rows looked through."""
    run.narrate(PLAN, WorkOrder(run.output, RECIPE, "", 96, {}))
    endpoint: Any = Summarizer(when_asked)
    run.reduce(PROBES, ReduceOrder(run.output, {}, Served("tiny", "r", 0.2), endpoint))
    segments = read_rows(f"{run.output}/segments", SEGMENTS)
    assert sorted(row["segment_id"] for row in segments) == ["v0", "v1", "w0", "w1"]
    assert {row["status"] for row in segments} == {OK}
    return sorted(read_rows(f"{run.output}/videos", VIDEOS), key=lambda row: row["video_id"])


def assert_whole(videos: list[Row], run: Run) -> None:
    assert [row["video_id"] for row in videos] == ["v", "w"]
    for row in videos:
        name = row["video_id"]
        assert (row["status"], row["n_frames"], row["decode_s"]) == (OK, 16, 2.0)
        assert row["summary"] == f"0.0 s: said in {name}0.\n4.0 s: said in {name}1."
        assert len(row["chapters"]) == 1
    progress = run.ledger.progress.remote()
    assert dict(progress.videos) == {OK: 2}
    assert dict(progress.segments) == {OK: 4}
    assert (progress.frames, progress.video_seconds) == (32, 16.0)


def late_file(folder: Path, rows: list[Row], schema: pa.Schema) -> Callable[[], None]:
    """Lands, once, a file that was begun before those of the run that has taken over."""
    left = [Path(write_rows(str(folder), rows, schema))]
    data = left[0].read_bytes()
    left[0].unlink()

    def land() -> None:
        while left:
            left.pop().with_name("part-20260101T000000-0a1b2c3d4e5f.parquet").write_bytes(data)

    return land


def test_undisturbed(begun: Callable[[], Run]) -> None:
    """Guards against passes of this test that show nothing."""
    run = begun()
    assert_whole(carried_out(run), run)


@pytest.mark.parametrize("status", [OK, FAILED])
@pytest.mark.parametrize("amid", ["narrating", "summarizing"])
def test_segments_of_another_run_that_land_late_count_once(
    begun: Callable[[], Run],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    amid: str,
    status: str,
) -> None:
    """Guards against rows twice in a job that ends well, and a video's row made of both."""
    rows = [segment(planned, status=status) for planned in PLAN[:3]]
    land = late_file(tmp_path / "segments", rows, SEGMENTS)
    if amid == "narrating":
        monkeypatch.setattr(Narrator, "__call__", _after(Narrator.__call__, land))
    run = begun()
    assert_whole(carried_out(run, land if amid == "summarizing" else lambda: None), run)


@pytest.mark.parametrize("amid", ["narrating", "summarizing"])
def test_a_video_s_row_of_another_run_that_lands_late_is_made_anew(
    begun: Callable[[], Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, amid: str
) -> None:
    """Guards against a row that speaks of segments which had failed and have been made since."""
    row = dict.fromkeys(VIDEOS.names) | {"video_id": "v", "uri": "v", "status": PARTIAL}
    land = late_file(tmp_path / "videos", [row], VIDEOS)
    if amid == "narrating":
        monkeypatch.setattr(Narrator, "__call__", _after(Narrator.__call__, land))
    run = begun()
    assert_whole(carried_out(run, land if amid == "summarizing" else lambda: None), run)


def _after(call: Any, act: Callable[[], None]) -> Any:
    def called(worker: Any, batch: pa.Table) -> Iterator[pa.Table]:
        yield from call(worker, batch)
        act()

    return called


@pytest.mark.parametrize("twice", [False, True])
def test_who_was_taken_over_takes_nothing_out(
    begun: Callable[[], Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, twice: bool
) -> None:
    """Guards rows of the run that has taken over, and ended, while a write of this one stalled."""

    def lost(*_: Any) -> None:
        raise LeaseLostError("taken over")

    carried_out(begun())
    if twice:
        late_file(tmp_path / "segments", [segment(PLAN[0])], SEGMENTS)()
    run, whole = begun(), state_of(tmp_path)  # it knew of no row when it began
    monkeypatch.setattr("actors.lease.require", lost)
    with pytest.raises(LeaseLostError):
        run.narrate(PLAN, WorkOrder(run.output, RECIPE, "", 96, {}))
    assert state_of(tmp_path) == whole
