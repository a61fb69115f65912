"""Bars that figures are held to, and whether a figure clears its bar."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: A frame of a live stream is late after so many seconds.
LAG_LIMIT_S = 1.0


@dataclass(frozen=True)
class Spread:
    """A figure over the runs it was taken in: median, bounds, and how many they were."""

    median: float
    least: float
    most: float
    n: int


def number(value: float) -> str:
    """A number of three digits, whole ones and large ones as they are."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:#.3g}"


def shown(found: Spread) -> str:
    """A figure with its bounds, where it was taken more than once."""
    middle = number(found.median)
    if found.n == 1 or found.least == found.most:
        return middle
    return f"{middle} ({number(found.least)} to {number(found.most)})"


@dataclass(frozen=True)
class Bar:
    """The least or most that a figure may be."""

    side: Literal["at least", "at most"]
    limit: float

    def __str__(self) -> str:
        return f"{self.side} {self.limit:g}"

    def clears(self, value: float) -> bool:
        """Whether ``value`` is on the right side, the bar itself included."""
        return value >= self.limit if self.side == "at least" else value <= self.limit

    def verdict(self, found: Spread) -> Verdict:
        """What becomes of a figure; its median counts."""
        worst = found.least if self.side == "at least" else found.most
        of_bar = found.median / self.limit if self.limit else None
        return Verdict(self.clears(found.median), self.clears(worst), of_bar)


@dataclass(frozen=True)
class Verdict:
    """Whether a bar is met.

    Attributes:
        always: not only by the median but in each run.
        of_bar: the median as a multiple of the bar; None where that is zero.
    """

    met: bool
    always: bool
    of_bar: float | None

    def __str__(self) -> str:
        if self.met:
            return "met" if self.always else "met by the median, not in each run"
        if not self.of_bar:
            return "missed"
        if self.of_bar >= 3:
            return f"missed, {self.of_bar:.0f} times the bar"
        # A miss of a thousandth shall not read as none.
        beside = abs(self.of_bar - 1)
        return f"missed by {beside:.0%}" if beside >= 0.005 else "missed by under 1%"


@dataclass(frozen=True)
class Claim:
    """What one figure of a bench means, and what it is held to.

    Attributes:
        path: of the figure, as ``bench.kept`` reads it.
        says: one plain sentence without its full stop; figures in it as in ``missed``.
        bar: None where no number is aimed at.
        beside: what stands where there is no bar: which side is better, or the paper's number.
        missed: why the bar is missed and what was tried, printed where it is; figures in it are
            ``{PATH as FORMAT}``, of the same result.
        headline: few words for it in the first table; empty where it is not there.
        group: of figures within its section that have a table of their own; empty where the
            section has one table.
    """

    bench: str
    path: str
    says: str
    bar: Bar | None = None
    beside: str = ""
    missed: str = ""
    headline: str = ""
    group: str = ""

    @property
    def name(self) -> str:
        """The figure's own key."""
        return self.path.rpartition("/")[2]


def at_least(limit: float) -> Bar:
    """A bar to reach."""
    return Bar("at least", limit)


def at_most(limit: float) -> Bar:
    """A bar to stay under."""
    return Bar("at most", limit)
