"""The largest load that passes, found with few probes."""

from __future__ import annotations

import math
from collections.abc import Callable

#: A bracket this narrow is narrow enough; a step while there is none, and the most of them.
_CLOSE, _STEP, _STEPS = 1.15, 2, 8


def knee(passes: Callable[[int], bool], first: int, probes: int) -> int | None:
    """The largest number of sessions that passed; 0 if none did, None if all did.

    Widens by a constant factor from ``first`` until one passes and one fails, then halves the
    bracket on a logarithmic scale.

    Args:
        passes: tries so many sessions.
        probes: most tries within the bracket.
    """
    low, high = 0, 0
    for _ in range(_STEPS):
        n = low * _STEP if low else high // _STEP or max(1, first)
        if passes(n):
            low = n
        else:
            high = n
        if (low and high) or high == 1:
            break
    if not high:
        return None
    for _ in range(probes):
        n = min(high - 1, max(low + 1, round(math.sqrt(low * high))))
        if not low or high <= low * _CLOSE or n <= low:
            break
        if passes(n):
            low = n
        else:
            high = n
    return low
