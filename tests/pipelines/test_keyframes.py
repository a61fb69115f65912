"""Keyframes: the best, not crowding each other, in order.

Guards against a row that shows the same picture many times, or its pictures out of order.
"""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from pipelines.keyframes import choose


def test_the_best_come_first_and_neighbours_are_left_out() -> None:
    times = [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    scores = [0.1, 0.9, 0.8, 0.2, 0.95, 0.3]
    assert choose(times, scores, 2) == [1, 4]
    assert choose(times, scores, 9) == [1, 4]
    assert choose(times, scores, 9, min_gap_s=0.0) == [0, 1, 2, 3, 4, 5]


def test_nothing_to_choose_from() -> None:
    assert choose([], [], 5) == []


@given(st.lists(st.floats(0, 1), max_size=40), st.integers(0, 8))
def test_never_too_many_nor_too_close(scores: list[float], limit: int) -> None:
    times = [i * 0.5 for i in range(len(scores))]
    chosen = choose(times, scores, limit)
    assert len(chosen) <= limit
    assert chosen == sorted(set(chosen))
    assert all(times[b] - times[a] >= 1.0 for a, b in itertools.pairwise(chosen))
