"""What the ablations make of their rounds, and the sides that are the bench's own."""

from __future__ import annotations

import statistics
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from actors.sessionlog import SessionLog
from actors.statestore import Record, StateStore
from bench.ablate import ratios_of
from bench.ablate_commit import DEFAULT as NO_INTERVAL
from bench.ablate_commit import INTERVALS, Gathering
from bench.ablate_engine import CHUNKS, FORMS, KEEPS, PAGES
from bench.ablate_knob import Knob, Row, gathered, in_turn
from bench.ablate_memory import DEFAULT, POLICIES, Lived, as_full, right
from bench.ablate_quality import DECISION_KEEPS, ROUTERS, bundled, decisions, film, narrated
from mod.engine.cache import PAGE_SIZE
from mod.engine.policy import Window
from mod.engine.speculation import MAX_CHUNK


def test_a_value_is_held_against_the_default_of_its_own_round() -> None:
    """Guards against rounds that slowed down together and pass for a difference."""
    knob = Knob("b", {"a": {"ms": [2.0, 8.0, 4.0]}, "b": {"ms": [1.0, 4.0, 2.0]}})
    assert knob.over_default("a", "ms") == {"median": 2.0, "min": 2.0, "max": 2.0, "n": 3}
    assert knob.best("ms") == "b"
    assert knob.best_over_default("ms")["max"] == 1.0
    slow = Knob("a", knob.found)
    assert slow.best("ms") == "b"
    assert slow.best_over_default("ms")["median"] == 0.5
    tied = Knob("b", {"a": {"ms": [1.0]}, "b": {"ms": [1.0]}})
    assert tied.best("ms") == "b"


def test_a_knob_without_its_default_or_with_a_lost_round_is_refused() -> None:
    """Guards against a ratio over nothing, and against medians of unlike rounds."""
    with pytest.raises(ValueError, match="default '32' is not among 1, 2"):
        Knob("32", {"1": {"ms": [1.0]}, "2": {"ms": [1.0]}})
    with pytest.raises(ValueError, match=r"have \[1, 2\] rounds"):
        Knob("1", {"1": {"ms": [1.0]}, "2": {"ms": [1.0, 2.0]}})


def test_sides_run_in_turn_and_the_first_round_does_not_count() -> None:
    """Guards against one side's rounds all before another's, and one side that is always first."""
    ran: list[str] = []

    def side(name: str) -> Row:
        ran.append(name)
        return {"ms": float(len(ran))}

    knob = in_turn("a", {name: partial(side, name) for name in "abc"}, 3)
    assert "".join(ran) == "abcbcacababc"
    assert knob.found["a"]["ms"] == [6.0, 8.0, 10.0]
    assert list(knob.found) == ["a", "b", "c"]


def test_every_ratio_is_of_values_that_are_tried() -> None:
    """Guards against a bench that fails in its last line, minutes after it began."""
    metrics = (
        *("ms_a_frame", "kib_a_frame", "lm_ppl", "agreement", "pages_over_held", "held_mib"),
        *("late_ms_a_frame", "as_full", "p50_ms", "p99_ms", "writes_a_second"),
    )
    decided = [f"{way} at {keep}" for keep in DECISION_KEEPS for way in ("kept", "free")]
    values = {
        "chunk": (str(MAX_CHUNK), CHUNKS),
        "chunk_silent": (str(MAX_CHUNK), CHUNKS),
        "keep": ("0.2", KEEPS),
        "keep_quality": ("0.2", KEEPS),
        "router": ("bounded", FORMS),
        "router_quality": ("bounded", ROUTERS),
        "decision": (
            "kept at 0.2",
            decided,
        ),
        "page": (str(PAGE_SIZE), PAGES),
        "memory": (DEFAULT, POLICIES),
        "commit_folder": (NO_INTERVAL, INTERVALS),
        "commit_distant": (NO_INTERVAL, INTERVALS),
    }
    found = {
        name: gathered(default, [{str(value): dict.fromkeys(metrics, 2.0) for value in tried}])
        for name, (default, tried) in values.items()
    }
    ratios = ratios_of(found)
    assert len(ratios) > 25
    over = [one["median"] for name, one in ratios.items() if "_over_default_" in name]
    assert set(over) == {1.0}
    window = POLICIES[DEFAULT]
    assert isinstance(window, Window)
    assert window == Window()


def test_answers_are_held_against_the_models_own_narrations() -> None:
    """Guards against a memory that counts as good because the model is wrong anyway."""
    said = ["A red scene.", "Cut to a blue scene.", "A ball appears."]
    answers = {
        "How did it begin?": "It was red.",
        "What appeared first?": "Nothing.",
        "How many cuts so far?": "One cut.",
        "How many things appeared?": "One thing.",
        "How does it look now?": "It is red.",
        "What did the camera do last?": "Nothing.",
        "What met last?": "Nothing.",
    }
    one = Lived({}, said, answers)
    assert right(one) == {"beginning": 0.5, "counts": 1.0, "recent": pytest.approx(2 / 3)}
    assert right(Lived({}, [], answers)) == {"beginning": 0.0, "counts": 0.0, "recent": 0.0}
    other = Lived({}, said, {**answers, "What met last?": "The ball meets the box."})
    assert as_full(other, one) == pytest.approx(6 / 7)


class Counting(StateStore):
    """A store that notes how many records each batch has."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.batches: list[int] = []

    def append(self, owner: str, number: int, records: Sequence[Record]) -> None:
        super().append(owner, number, records)
        self.batches.append(len(records))


@pytest.mark.parametrize(("seconds", "batches"), [(None, [1] * 8), (0.3, [8])])
def test_records_are_gathered_as_the_interval_says(
    tmp_path: Path, seconds: float | None, batches: list[int]
) -> None:
    """Guards the sides that ours is held against, and that each record's wait is counted."""
    store = Counting(str(tmp_path))
    log = SessionLog(store, "a")
    gathering = Gathering(log, seconds)
    for number in range(8):
        gathering.give(Record("s", 1, number, "question", {}))
    gathering.finish()
    log.close()
    assert store.batches == batches
    assert len(gathering.waited) == 8
    assert min(gathering.waited) >= (seconds or 0.0)
    assert not any(t.name == "gathering" and t.is_alive() for t in threading.enumerate())


@pytest.mark.slow
def test_a_free_decision_token_is_skipped_now_and_then() -> None:
    """Guards the ablation of the decision rule against a knob that turns nothing."""
    ran = {}
    for kept in (True, False):
        model, layout = bundled(0.1, decision=kept)
        with decisions(model) as each:
            narrated(model, layout, film(5, 12))
        assert len(each) >= 12 * len(model.config.mod_layers)
        ran[kept] = statistics.fmean(each)
    assert ran[True] == 1.0
    assert ran[False] < 1.0
