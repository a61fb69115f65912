"""Which inputs a session takes: numbers, repetitions, times.

Guards against inputs that are applied twice, out of order or in part.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.live.admission import MOST_WAITING, Counters
from serve.live.items import Frame, Input, Question, Receipt, SessionError

PIXELS = np.zeros((2, 2, 3), np.uint8)


def _frames(*times: float | None) -> list[Input]:
    return [Frame(PIXELS, time_s) for time_s in times]


def _outcomes(receipts: list[Receipt]) -> list[str]:
    return [r.reason or r.outcome for r in receipts]


def test_frames_between_two_of_the_sessions_fps_are_dropped() -> None:
    decided = Counters("s", 2.0).admit(_frames(0.0, 0.1, 0.4999, 0.5, 0.9, 1.2, 1.1), None, 0)
    assert _outcomes(decided.receipts) == [
        "accepted",
        "rate",
        "accepted",
        "rate",
        "rate",
        "accepted",
        "late",
    ]
    assert [r.seq for r in decided.receipts] == list(range(1, 8))
    assert [r.frame for r in decided.receipts if r.outcome == "accepted"] == [0, 1, 2]
    assert (decided.after.seq, decided.after.frames) == (7, 3)


def test_frames_without_times_are_one_frame_apart() -> None:
    decided = Counters("s", 4.0).admit(_frames(None, None, 3.0, None), None, 0)
    assert [time_s for _, _, time_s in decided.new] == [0.0, 0.25, 3.0, 3.25]


def test_a_repeated_number_is_answered_as_before_and_decides_nothing() -> None:
    """Guards idempotency: a retry changes no counter, whatever the time it now names."""
    first = Counters("s", 2.0).admit([*_frames(0.0, 0.1), Question("?")], 1, 0)
    again = first.after.admit([*_frames(9.0, 9.1), Question("other")], 1, 0)
    assert again.new == []
    assert again.after == first.after
    assert all(receipt.repeated for receipt in again.receipts)
    plain = [(r.seq, r.outcome, r.reason, r.frame, r.response) for r in first.receipts]
    assert [(r.seq, r.outcome, r.reason, r.frame, r.response) for r in again.receipts] == plain
    partly = first.after.admit([Question("?"), *_frames(1.0)], 3, 0)
    assert [r.repeated for r in partly.receipts] == [True, False]
    assert partly.after.seq == 4


def test_gaps_and_impossible_numbers_and_times_are_refused_whole() -> None:
    counters = Counters("s", 2.0).admit(_frames(0.0), None, 0).after
    with pytest.raises(SessionError, match="leaves a gap: the session has 1"):
        counters.admit(_frames(1.0), 3, 0)
    with pytest.raises(SessionError, match="begin at 1"):
        counters.admit(_frames(1.0), 0, 0)
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(SessionError, match="0 or more seconds"):
            counters.admit(_frames(1.0, wrong), None, 0)
    with pytest.raises(SessionError, match="was a frame, not a question"):
        counters.admit([Question("?")], 1, 0)


def test_a_session_that_lags_drops_new_calls_but_no_part_of_one() -> None:
    decided = Counters("s", 2.0).admit([*_frames(0.0, 0.5), Question("?")], None, MOST_WAITING + 1)
    assert _outcomes(decided.receipts) == ["lag", "lag", "accepted"]
    many = _frames(*(0.5 * i for i in range(MOST_WAITING + 9)))
    assert set(_outcomes(Counters("s", 2.0).admit(many, None, MOST_WAITING).receipts)) == {
        "accepted"
    }


@given(
    st.lists(st.floats(0, 20) | st.none() | st.just("?"), max_size=30), st.lists(st.integers(0, 30))
)
def test_however_inputs_are_cut_and_repeated_the_outcome_is_the_same(
    what: list[float | str | None], cuts: list[int]
) -> None:
    """Guards against a decision that depends on calls and not on inputs alone."""
    inputs: list[Input] = [
        Question("?") if time_s == "?" else Frame(PIXELS, time_s)  # type: ignore[arg-type]
        for time_s in what
    ]
    whole = Counters("s", 2.0).admit(inputs, 1, 0)
    pieces = Counters("s", 2.0)
    receipts: dict[int, Receipt] = {}
    for start in [*sorted(c for c in cuts if c < len(inputs)), len(inputs)]:
        first = max(1, min(start, pieces.seq) - 2)
        decided = pieces.admit(inputs[first - 1 : start], first, 0)
        for receipt in decided.receipts:
            if not receipt.repeated:
                receipts[receipt.seq] = receipt
        pieces = decided.after
    assert list(receipts.values()) == whole.receipts
    assert pieces == whole.after
    assert Counters.of("s", pieces.state()) == pieces
