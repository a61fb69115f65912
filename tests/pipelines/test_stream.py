"""``--mode stream`` without a cluster: what becomes of a stream that a segment was missing from.

The model's state is the list of the segments that it has seen, and that is what it says.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import ray

from actors.decode import DecodedSegment
from actors.ledger import Ledger
from actors.progress import Progress
from actors.rows import drop_rows, read_rows
from longreel.schemas import FAILED, OK, PLAN, SEGMENTS
from pipelines import retries, stream
from pipelines.ids import Recipe
from pipelines.retries import drop_retried
from pipelines.stream import StreamWorker
from serve.narrated import Narrated
from serve.served import Served
from tests.pipelines.direct import Direct, plan_of

PROBES, ROWS = plan_of("v", n_segments=5)
TOLD = ["0", "01", "012", "0123", "01234"]


@dataclass
class Order:
    """A work order whose pictures hold the number of their segment.

    Attributes:
        away: numbers of the segments that the store does not give today.
    """

    output: str
    away: set[int] = field(default_factory=set)
    recipe = Recipe("m", "r", "p", 1.0, 1.0, 4.0, 0.0, mode="stream")
    instruction = ""
    provenance: Any = field(default_factory=dict)

    def decode(self, planned: dict[str, Any], ledger: Any, deaths: int) -> DecodedSegment:
        number = planned["segment_index"]
        lost = number in self.away
        times = np.array([] if lost else [planned["start_s"]])
        status, error = (FAILED, "SlowDown: x") if lost else (OK, None)
        frames = np.full((len(times), 1, 1, 3), number, np.uint8)
        jpegs = [b""] * len(times)
        return DecodedSegment(times.astype(int), times, frames, jpegs, status, error, 0.1)

    def trace(self, row: dict[str, Any], began_ns: int) -> None:
        """Tells nobody."""


class Replica:
    """Says which segments it has seen."""

    def follow(
        self,
        frames: Any,
        _instruction: str,
        _threshold: float,
        state: bytes | None,
        _fps: float,
        wanted: Served,
    ) -> tuple[Narrated, bytes]:
        seen = (state or b"") + b"%d" % frames[0, 0, 0, 0]
        return Narrated([seen.decode()], [1.0], "", 1, 1, 1, 0.1), seen


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "get", lambda answer: answer)
    monkeypatch.setattr(stream, "replicas_once_ready", lambda _: Direct(Replica()))
    monkeypatch.setattr(stream, "answer", lambda response, _: (response, None))


def run(output: Path, order: Order, rows: int | None = None) -> list[str]:
    """What all segments of the output say after a run that ends, or is killed after some rows."""
    drop_retried(str(output), PROBES, "stream")
    known = {row["segment_id"] for row in read_rows(f"{output}/segments", SEGMENTS)}
    ledger = Ledger(str(output), Progress(), known)
    handle: Any = Direct(ledger)
    made = StreamWorker(order, handle)(pa.Table.from_pylist(ROWS, schema=PLAN))  # type: ignore[arg-type]
    for number, _ in enumerate(made):
        if number + 1 == rows:
            ledger.flush()
            break
    found = read_rows(f"{output}/segments", SEGMENTS)
    found.sort(key=lambda row: row["segment_index"])
    return ["".join(n["text"] for n in row["narrations"]) for row in found]


@pytest.mark.parametrize("away", [{0}, {2}, {1, 3}, {4}])
def test_what_was_told_without_a_segment_is_told_anew(tmp_path: Path, away: set[int]) -> None:
    """Guards against a stream that stays as it went on while the store was away."""
    first = run(tmp_path, Order(str(tmp_path), away))
    assert first != TOLD
    assert run(tmp_path, Order(str(tmp_path))) == TOLD
    assert run(tmp_path, Order(str(tmp_path))) == TOLD


@pytest.mark.parametrize("dropped", range(4))
def test_a_kill_amid_taking_out_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dropped: int
) -> None:
    """Guards against rows that nothing marks any more, once the failed one is gone."""
    run(tmp_path, Order(str(tmp_path), {1}))
    left = [drop_rows] * dropped
    with monkeypatch.context() as patch:
        patch.setattr(retries, "drop_rows", lambda *given: left.pop()(*given))
        with pytest.raises(IndexError):
            drop_retried(str(tmp_path), PROBES, "stream")
    assert run(tmp_path, Order(str(tmp_path))) == TOLD


def test_a_state_that_was_kept_without_a_segment_is_not_gone_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against a kill after rows were taken out that brings back the stream without them."""
    keeping = partial(monkeypatch.setattr, stream, "SAVE_EVERY_S")
    keeping(0.0)
    assert run(tmp_path, Order(str(tmp_path), {1}), rows=4) == ["0", "", "02", "023"]
    assert (tmp_path / "_longreel" / "streams" / "v.state").read_bytes() == b"3\n02"
    keeping(1e9)
    assert run(tmp_path, Order(str(tmp_path)), rows=3) == TOLD[:4]
    assert run(tmp_path, Order(str(tmp_path))) == TOLD
