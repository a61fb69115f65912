"""One knob and what was measured at each value that was tried, each over the default."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.harness import ratio

#: What one run gives: each metric's figure.
Row = dict[str, float]


@dataclass(frozen=True)
class Knob:
    """A setting that was turned while all others stood still.

    Attributes:
        default: the value that the product has, one of ``found``.
        found: of each value and metric, a figure a round; rounds of different values belong
            together one by one.

    Raises:
        ValueError: the default was not tried, or some value has another number of rounds.
    """

    default: str
    found: dict[str, dict[str, list[float]]]

    def __post_init__(self) -> None:
        if self.default not in self.found:
            raise ValueError(f"the default {self.default!r} is not among {', '.join(self.found)}")
        rounds = {len(figures) for by in self.found.values() for figures in by.values()}
        if len(rounds) != 1:
            raise ValueError(f"values of one knob have {sorted(rounds)} rounds")

    def over_default(self, value: str, metric: str) -> dict[str, float]:
        """A metric at ``value`` over that at the default, round by round."""
        pairs = zip(self.found[value][metric], self.found[self.default][metric], strict=True)
        return ratio([here / there for here, there in pairs])

    def best(self, metric: str) -> str:
        """The value whose median is the least; the default where it is no worse."""
        medians = {value: statistics.median(by[metric]) for value, by in self.found.items()}
        least = min(medians.values())
        if medians[self.default] == least:
            return self.default
        return min(medians, key=medians.__getitem__)

    def best_over_default(self, metric: str) -> dict[str, float]:
        """The least median's value over the default: 1 where the default is the best that was
        tried. The best of several is partly so by luck."""
        return self.over_default(self.best(metric), metric)

    def shown(self) -> dict[str, Any]:
        """For the result: each value's metrics with their spread and mean."""
        return {
            "default": self.default,
            "values": {
                value: {
                    metric: {**ratio(figures), "mean": statistics.fmean(figures)}
                    for metric, figures in by.items()
                }
                for value, by in self.found.items()
            },
        }


def gathered(default: str, rounds: Sequence[Mapping[str, Row]]) -> Knob:
    """A knob out of what each round gave for every value."""
    found: dict[str, dict[str, list[float]]] = {}
    for one in rounds:
        for value, row in one.items():
            for metric, figure in row.items():
                found.setdefault(value, {}).setdefault(metric, []).append(figure)
    return Knob(default, found)


def in_turn(default: str, sides: Mapping[str, Callable[[], Row]], rounds: int) -> Knob:
    """Run all sides in every round, after one that warms up.

    Each round begins with the next side: none is always the one after a slow one.
    """
    names = list(sides)
    kept = []
    for number in range(rounds + 1):
        first = number % len(names)
        rows = {name: sides[name]() for name in [*names[first:], *names[:first]]}
        if number:
            kept.append({name: rows[name] for name in names})
    return gathered(default, kept)
