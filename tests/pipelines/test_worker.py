"""Segments that end the process which decodes them: given up after some attempts, and alone.

Guards against a job that never ends, since Ray starts what died anew without end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import ray

from actors.deaths import MOST_DEATHS
from actors.decode import DecodedSegment, nothing_decoded
from actors.ledger import Ledger
from actors.progress import Progress
from actors.thumbnails import Thumbnails
from longreel.schemas import FAILED, OK, PLAN
from mod.checkpoint import TINY
from pipelines import stream, worker
from pipelines.ids import Recipe
from pipelines.stream import StreamWorker
from pipelines.worker import SegmentWorker, WorkOrder
from serve.narrated import Narrated
from tests.pipelines.direct import Direct
from tests.pipelines.job_runs import Row, rows

IDS = ("s0", "s1", "s2", "s3")
NARRATED = Narrated(["Red."], [0.5], "Red.", 10, 36, 1000, 0.1)


class _ProcessEndedError(BaseException):
    """As the out-of-memory killer ends a worker: nothing catches it."""


class _Replicas:
    """The model: says one word of whatever it is given, or takes who waits for it along."""

    def __init__(self, dead: bool = False) -> None:
        self._dead = dead

    def _said(self, answer: Any) -> Any:
        def result() -> Any:
            if self._dead:
                raise _ProcessEndedError
            return answer

        return SimpleNamespace(result=result)

    @property
    def narrate(self) -> Any:
        return SimpleNamespace(remote=lambda *_, **__: self._said(NARRATED))

    @property
    def follow(self) -> Any:
        return SimpleNamespace(remote=lambda *_, **__: self._said((NARRATED, b"state")))


def _plan(n: int) -> pa.Table:
    row: Row = dict.fromkeys(PLAN.names)
    row |= {"video_id": "v", "uri": "v.mp4", "n_segments": n, "fps": 1.0, "duration_s": float(n)}
    spans = [{"segment_index": i, "start_s": float(i), "end_s": i + 1.0} for i in range(n)]
    return pa.Table.from_pylist(
        [row | span | {"segment_id": f"s{i}"} for i, span in enumerate(spans)], schema=PLAN
    )


def _decoded(planned: dict[str, Any], _: int) -> DecodedSegment:
    index = np.array([planned["segment_index"]], np.int64)
    frames = np.zeros((1, 8, 8, 3), np.uint8)
    return DecodedSegment(index, index.astype(float), frames, [b"jpeg"], OK, None, 0.1)


@pytest.fixture(params=[SegmentWorker, StreamWorker])
def start(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Ledger], Any]:
    """Makes a worker of either mode anew, as Ray does in the place of one that died."""
    monkeypatch.setattr(ray, "get", lambda answer: answer)
    mode = "stream" if request.param is StreamWorker else "segments"
    recipe = Recipe(TINY, "r", "p", 0.2, 1.0, 30.0, 0.0, mode)
    columns: Row = {"job_id": "j", "model": TINY, "model_revision": "r", "prompt_hash": "p"}
    columns |= {"code_version": "0", "keep_ratio": 0.2, "fps": 1.0}
    order = WorkOrder(str(tmp_path), recipe, "Watch.", 8, columns)

    def begin(ledger: Ledger) -> Any:
        made = request.param(order, Direct(ledger))
        made._replica = _Replicas()
        return made

    return begin


@pytest.mark.parametrize("bad", [{"s2"}, {"s0"}, {"s1", "s2"}, {"s0", "s1", "s2", "s3"}])
def test_segments_that_end_their_process_fail_alone_and_in_the_end(
    bad: set[str], start: Callable[[Ledger], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaths: Counter[str] = Counter()

    def decode(planned: dict[str, Any], side: int) -> DecodedSegment:
        if planned["segment_id"] in bad:
            deaths[planned["segment_id"]] += 1
            raise _ProcessEndedError
        return _decoded(planned, side)

    monkeypatch.setattr(worker, "decode_planned", decode)
    ledger = Ledger(str(tmp_path), Progress(), set())
    for _ in range(MOST_DEATHS * len(bad) + 1):
        try:
            list(start(ledger)(_plan(4)))
            break
        except _ProcessEndedError:
            continue
    ledger.flush()
    found = {row["segment_id"]: row for row in rows(tmp_path, "segments")}
    assert deaths == dict.fromkeys(bad, MOST_DEATHS)
    assert {name for name, row in found.items() if row["status"] == FAILED} == bad
    assert {name for name, row in found.items() if row["status"] == OK} == set(IDS) - bad
    for name in bad:
        assert found[name]["error"].startswith("WorkerDied: decoding it ended its process")


def test_a_worker_that_dies_while_the_model_works_is_no_segment_s_fault(
    start: Callable[[Ledger], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against good segments that fail on machines that come and go."""
    monkeypatch.setattr(worker, "decode_planned", _decoded)
    ledger = Ledger(str(tmp_path), Progress(), set())
    for _ in range(3 * MOST_DEATHS):
        made = start(ledger)
        made._replica = _Replicas(dead=True)
        with pytest.raises(_ProcessEndedError):
            list(made(_plan(2)))
    list(start(ledger)(_plan(2)))
    ledger.flush()
    assert [row["status"] for row in rows(tmp_path, "segments")] == [OK, OK]


def test_undisturbed_segments_are_decoded_ahead(
    start: Callable[[Ledger], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against a model that waits for pictures, where nothing has died."""
    order: list[str] = []

    def decode(planned: dict[str, Any], side: int) -> DecodedSegment:
        order.append(f"decode {planned['segment_id']}")
        return _decoded(planned, side)

    def hand_over(row: Row, ledger: Any) -> pa.Table:
        order.append(f"row {row['segment_id']}")
        return given(row, ledger)

    given = worker.hand_over
    monkeypatch.setattr(worker, "decode_planned", decode)
    monkeypatch.setattr(worker, "hand_over", hand_over)
    monkeypatch.setattr(stream, "hand_over", hand_over)
    list(start(Ledger(str(tmp_path), Progress(), set()))(_plan(3)))
    assert order == ["decode s0", "decode s1", "row s0", "decode s2", "row s1", "row s2"]


def test_nothing_decoded_is_a_whole_segment_without_pictures() -> None:
    """Guards against a failed row that cannot be made."""
    none = nothing_decoded("WorkerDied: why")
    assert (len(none.indices), len(none.times_s), len(none.frames), len(none.thumbnails)) == (
        0,
    ) * 4
    assert isinstance(none.thumbnails, Thumbnails)
    assert (none.status, none.error, none.decode_s) == (FAILED, "WorkerDied: why", 0.0)
