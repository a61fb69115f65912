"""What the bench of routers without training makes of its measurements."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench import weights
from bench.model import QUICK
from bench.weights import lost, over
from mod.metrics import TeacherForced


def _found(*ppls: float) -> list[TeacherForced]:
    return [TeacherForced(ppl, 0.2, 0.5, 0.5, 10) for ppl in ppls]


def test_losses_are_told_part_by_part() -> None:
    """Guards against a mean over parts that differ in how hard they are."""
    dense = _found(2.0, 4.0, 1.0)
    assert lost(_found(2.2, 4.0, 1.5), dense) == pytest.approx([0.1, 0.0, 0.5])
    found = over(_found(2.2, 4.1, 1.3), _found(2.4, 4.4, 1.1), dense)
    assert (found["min"], found["max"], found["n"]) == pytest.approx((0.25, 3.0, 3))
    assert found["median"] == pytest.approx(0.5)


@pytest.mark.slow
def test_a_bench_goes_on_from_what_was_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against measuring, or training, again what a bench that was cut off has found."""
    parts = tmp_path / f"{QUICK.base_steps} and {QUICK.steps} steps"
    parts.mkdir()
    row = {"time_diff_s": 0.2, "fluency": 0.5, "lm_correctness": 0.5, "turns": 10}
    loss = {"redundancy": 0.2, "random": 0.4}

    def left(name: str, ppl: float) -> None:
        rows: list[dict[str, Any]] = [{"lm_ppl": ppl, **row}] * weights.PARTS
        (parts / f"{name}.json").write_text(json.dumps(rows))

    left("untrained none after-2 1.0", 1.0)
    left("trained after-2 0.2", 1.1)
    for router in weights.ROUTERS:
        for keep in weights.KEEPS:
            left(f"untrained {router} after-2 {keep}", 1.0 + loss.get(router, 0.3))
        left(f"untrained {router} interleaved 0.2", 1.01)
    monkeypatch.setenv("LONGREEL_BENCH_PARTS", str(tmp_path))
    monkeypatch.setattr(weights, "watch", lambda seed, n: None)
    monkeypatch.setattr(weights, "train_base", lambda path: path.touch())
    monkeypatch.setattr(weights, "_quality", lambda effort: None)
    monkeypatch.setattr("torch.load", lambda path: {})
    _, ratios, figures = weights.measure(quick=True)
    assert ratios["redundancy_over_random"]["median"] == pytest.approx(0.5)
    assert ratios["redundancy_over_random"]["n"] == weights.PARTS
    assert ratios["trained_over_random"]["median"] == pytest.approx(0.25)
    assert set(figures["deep"]) == {*weights.ROUTERS, "trained"}
