"""A range of grid points on the clock of one video."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from actors.grid import first_index_at


@dataclass(frozen=True)
class Wanted:
    """Grid indices ``[first_index, end_index)`` of a clock that starts at ``origin_pts``."""

    origin_pts: int
    first_index: int
    end_index: int
    rate: Fraction

    def tick(self, index: int, time_base: Fraction) -> int:
        """The last tick at or before a grid point."""
        return self.origin_pts + math.floor(index / (self.rate * time_base))

    def seconds(self, pts: int, time_base: Fraction) -> Fraction:
        """When a picture is shown, in seconds on that clock."""
        return (pts - self.origin_pts) * time_base


class Ticks:
    """Grid points of a range as ticks of a video's clock, each worked out once."""

    def __init__(self, wanted: Wanted, time_base: Fraction) -> None:
        self._wanted, self._time_base = wanted, time_base
        #: Of the first and the last point in the range.
        self.first = wanted.tick(wanted.first_index, time_base)
        self.last = wanted.tick(wanted.end_index - 1, time_base)
        # All pictures from one tick to another have the same next point.
        self._after = self._next = self.first

    def at_or_after(self, pts: int) -> int:
        """The tick of the first grid point at or after ``pts``, or of the range's first one.

        It may lie after the range.
        """
        if pts <= self.first:
            return self.first
        if not self._after < pts <= self._next:
            wanted, time_base = self._wanted, self._time_base
            index = first_index_at(wanted.seconds(pts, time_base), wanted.rate)
            self._after = wanted.tick(index - 1, time_base)
            self._next = wanted.tick(index, time_base)
        return self._next
