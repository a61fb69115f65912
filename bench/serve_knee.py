"""The largest load that passes, found with few probes."""

from __future__ import annotations

import math
from collections.abc import Callable

#: A bracket this narrow is narrow enough, and steps while there is none.
_CLOSE, _STEP = 1.15, 1.6


def knee(passes: Callable[[int], bool], first: int, probes: int) -> int:
    """The largest number of sessions that passed; 0 if none did.

    Widens by a constant factor from ``first`` until one passes and one fails, then halves the
    bracket on a logarithmic scale.

    Args:
        passes: tries so many sessions.
        probes: most tries.
    """
    low, high, n = 0, 0, max(1, first)
    for _ in range(probes):
        if passes(n):
            low = n
        else:
            high = n
        if not high:
            n = max(n + 1, round(low * _STEP))
        elif not low:
            if high == 1:
                break
            n = min(high - 1, max(1, round(high / _STEP)))
        else:
            n = round(math.sqrt(low * high))
            if high <= low * _CLOSE or not low < n < high:
                n = low + 1
                if n >= high or high <= low * _CLOSE:
                    break
    return low
