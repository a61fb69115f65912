"""What runs in the next step: a pure function from what waits to what is taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum


class Kind(IntEnum):
    """Kinds of work, the most urgent first."""

    DECODE = 0
    LIVE = 1
    QUESTION = 2
    BULK = 3


@dataclass(frozen=True)
class Work:
    """What one session could do next.

    Attributes:
        session: its name.
        kind: how urgent.
        since: when the oldest of it arrived, in seconds on any clock; older goes first.
        fixed_tokens: tokens that run whatever share is taken.
        units: how many units (frames) wait; 0 when there is nothing but the fixed tokens.
        unit_tokens: tokens of one unit.
        alone: it shares no step. Rounding depends on who shares one: words do not, but the
            probabilities in a bulk job's rows would differ from run to run.
    """

    session: str
    kind: Kind
    since: float
    fixed_tokens: int
    units: int = 0
    unit_tokens: int = 0
    alone: bool = False


@dataclass(frozen=True)
class Taken:
    """Work that runs in this step, and how many of its units."""

    work: Work
    units: int


def plan(waiting: Sequence[Work], budget: int) -> list[Taken]:
    """Fill a step of ``budget`` tokens, at most one work of each session.

    By urgency, then by age. Each work gets its fixed tokens and one unit, as far as the budget
    goes, before any gets a second one, so that nobody waits for another's long run; what is left
    goes to the first in order. Something is always taken, even if it alone exceeds the budget.

    Args:
        waiting: at most one entry a session.
    """
    order = sorted(waiting, key=lambda work: (work.kind, work.since, work.session))
    taken: list[list[int]] = []
    left = budget
    for index, work in enumerate(order):
        least = work.fixed_tokens + min(work.units, 1) * work.unit_tokens
        if taken and (work.alone or least > left):
            # Nor does anything behind it run: what is small would pass it by again and again.
            break
        taken.append([index, min(work.units, 1)])
        left -= least
        if work.alone:
            break
    for entry in taken:
        work = order[entry[0]]
        if work.unit_tokens:
            more = max(0, min(work.units - entry[1], left // work.unit_tokens))
            entry[1] += more
            left -= more * work.unit_tokens
    return [Taken(order[index], units) for index, units in taken]
