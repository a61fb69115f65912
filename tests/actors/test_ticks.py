"""Grid points as ticks: kept ones are those worked out anew."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest

from actors.grid import first_index_at
from actors.ticks import Ticks, Wanted


@pytest.mark.parametrize("rate", [Fraction(2), Fraction(1, 2), Fraction(73, 10), Fraction(25)])
@pytest.mark.parametrize("time_base", [Fraction(1, 12800), Fraction(1, 90000), Fraction(1, 24)])
def test_the_next_point_is_that_of_exact_arithmetic(rate: Fraction, time_base: Fraction) -> None:
    """Guards against a point kept from another picture, in whatever order pictures come."""
    wanted = Wanted(-77, 3, 40, rate)
    ticks = Ticks(wanted, time_base)
    second = round(1 / time_base)
    drawn = random.Random(7)
    for at in range(-2 * second, 25 * second, max(1, second // 30)):
        pts = at + drawn.randrange(-second // 4, second // 4 + 1)
        index = first_index_at(wanted.seconds(pts, time_base), rate)
        assert ticks.at_or_after(pts) == wanted.tick(max(index, 3), time_base)
        for tick in (ticks.first, ticks.last, ticks.at_or_after(pts)):
            assert ticks.at_or_after(tick) == tick
            assert ticks.at_or_after(tick + 1) >= tick
            assert (ticks.at_or_after(tick + 1) > tick) == (tick >= ticks.first)
