"""The time grid on which every video is sampled, the same however the video is cut.

Grid point ``k`` lies at ``t_k = k / fps`` seconds on the video's clock, whose zero is the first
frame shown. Its picture is the frame on screen then: the last one that appears at or before
``t_k``. All of it is exact rational arithmetic, so no segment can round a point to its neighbour's.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt

#: Rates and durations come as floats; the nearest fraction with a denominator up to this restores
#: what was meant (7.3, 30000/1001, ticks of any common time base).
_LARGEST_DENOMINATOR = 1_000_000
#: Points per second of the slowest grid: two of them are days apart.
LOWEST_FPS = 1 / _LARGEST_DENOMINATOR


def exact(value: float | Fraction) -> Fraction:
    """The fraction a float stands for: 29.97002997002997 is 30000/1001, 0.1 is 1/10."""
    return Fraction(value).limit_denominator(_LARGEST_DENOMINATOR)


def exact_fps(fps: float | Fraction) -> Fraction:
    """Grid points per second as a fraction. Raises ``ValueError`` unless positive and finite."""
    if not math.isfinite(fps) or fps <= 0 or exact(fps) == 0:
        raise ValueError(f"fps is {fps}, which is no positive rate")
    return exact(fps)


def first_index_at(time_s: Fraction, fps: Fraction) -> int:
    """The smallest ``k`` with ``k / fps >= time_s``."""
    return math.ceil(time_s * fps)


def grid_size(duration_s: float, fps: float | Fraction) -> int:
    """How many grid points lie in ``[0, duration_s)``."""
    return max(0, first_index_at(exact(duration_s), exact_fps(fps)))


def held_indices(
    shown_s: Fraction, next_shown_s: Fraction, fps: Fraction, first_index: int, end_index: int
) -> range:
    """Grid points in ``[first_index, end_index)`` at which a frame is the one on screen.

    The frame appears at ``shown_s`` and stays until ``next_shown_s``.
    """
    start = max(first_index, first_index_at(shown_s, fps))
    return range(start, max(start, min(end_index, first_index_at(next_shown_s, fps))))


def grid_times(indices: npt.NDArray[np.int64], fps: float | Fraction) -> npt.NDArray[np.float64]:
    """``t_k`` in seconds for each index, correctly rounded: (n,) int64 to (n,) float64."""
    rate = exact_fps(fps)
    times: npt.NDArray[np.float64] = (indices * rate.denominator) / rate.numerator
    return times
