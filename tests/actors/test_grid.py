"""The grid's arithmetic: each point belongs to one frame, whatever the rates."""

from __future__ import annotations

import math
import random
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from actors.grid import LOWEST_FPS, exact_fps, first_index_at, grid_size, grid_times, held_indices


@pytest.mark.parametrize("fps", [0.5, 1, 2, 7.3, 30000 / 1001, 1 / 3])
def test_every_point_is_held_by_exactly_one_frame(fps: float) -> None:
    """Guards against points lost or doubled where a frame falls next to a grid point."""
    rate, rng = exact_fps(fps), random.Random(1)
    shown = [Fraction(0)]
    while shown[-1] < 30:
        shown.append(shown[-1] + Fraction(rng.choice([1, 33, 40, 1001, 2500]), 1000))
    held: list[int] = []
    for start, end in pairwise(shown):
        indices = held_indices(start, end, rate, 0, 10**9)
        assert all(start <= k / rate < end for k in indices)
        held.extend(indices)
    assert held == list(range(first_index_at(shown[-1], rate)))


def test_held_indices_stay_inside_the_segment() -> None:
    """Guards against a frame held across a cut being sampled by the wrong segment."""
    assert held_indices(Fraction(0), Fraction(10), Fraction(2), 3, 7) == range(3, 7)
    assert len(held_indices(Fraction(0), Fraction(1), Fraction(2), 3, 7)) == 0
    assert len(held_indices(Fraction(9), Fraction(10), Fraction(2), 3, 7)) == 0


@pytest.mark.parametrize("rate", [Fraction(30000, 1001), Fraction(73, 10), Fraction(1, 3)])
def test_a_float_rate_means_the_fraction_that_was_written(rate: Fraction) -> None:
    """Guards against 29.97... landing a hair before each frame and showing the one before."""
    assert exact_fps(float(rate)) == rate


@pytest.mark.parametrize("fps", [0, -1, math.nan, math.inf, 1e-9])
def test_impossible_rates_are_refused(fps: float) -> None:
    """Guards against a grid without points, and a division by nothing in a worker."""
    with pytest.raises(ValueError, match="fps"):
        exact_fps(fps)


def test_the_lowest_rate_is_one() -> None:
    """Guards against a floor, of sessions and jobs, below which the grid already refuses."""
    assert exact_fps(LOWEST_FPS) == Fraction(1, 1_000_000)
    assert grid_size(1.0, LOWEST_FPS) == 1


@pytest.mark.parametrize(
    ("duration_s", "fps", "size"),
    [(0.0, 2, 0), (0.04, 2, 1), (10.0, 2, 20), (10.01, 2, 21), (3.3, 10, 33), (9.9, 1 / 3, 4)],
)
def test_grid_size_counts_points_before_the_end(duration_s: float, fps: float, size: int) -> None:
    """Guards against a point at the very end, where no frame is shown any more."""
    assert grid_size(duration_s, fps) == size


def test_times_are_rounded_once() -> None:
    """Guards against times that differ by a bit between segments or from k / fps."""
    times = grid_times(np.arange(1000, dtype=np.int64), 7.3)
    assert times.dtype == np.float64
    assert times.tolist() == [float(Fraction(k) / Fraction(73, 10)) for k in range(1000)]
