"""Traces of live sessions: when each comes, how long it stays, and what it asks of a replica.

The same for a seed. Sessions differ, as those of real services do: in their frames a second, and
in whether anything happens in them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Kinds of sessions: frames a second, share of the time in which frames come, seconds between two
#: questions.
KINDS: dict[str, tuple[float, float, float]] = {
    "camera": (1.0, 1.0, 600.0),
    "film": (2.0, 1.0, 120.0),
    "sport": (4.0, 1.0, 120.0),
    "paused": (2.0, 0.15, 300.0),
}
_HOUR, _DAY = 3600, 24 * 3600


@dataclass(frozen=True)
class Trace:
    """The arrivals of hours or of a day.

    Attributes:
        length_s: when it ends.
        starts, ends: (sessions,) seconds, by ``starts``.
        fps: (sessions,) frames a second while active.
        duty: (sessions,) share of the time in which it is.
        asks_s: (sessions,) seconds between two questions.
        phase_s: (sessions,) by which a session's pauses and questions are shifted.
        losses_s: when a replica is lost.
    """

    length_s: int
    starts: NDArray[np.float64]
    ends: NDArray[np.float64]
    fps: NDArray[np.float64]
    duty: NDArray[np.float64]
    asks_s: NDArray[np.float64]
    phase_s: NDArray[np.float64]
    losses_s: tuple[int, ...] = ()


#: Sessions that come in a second, and of what kinds (weights in the order of ``KINDS``).
_Rate = Callable[[float], float]
_Mix = Callable[[float], tuple[float, ...]]


def _trace(
    rng: np.random.Generator,
    length_s: int,
    lasts_s: float,
    rate: _Rate,
    mix: _Mix,
    losses_s: tuple[int, ...] = (),
) -> Trace:
    """A Poisson process of arrivals, each of an exponential duration."""
    starts = np.concatenate(
        [second + np.sort(rng.random(rng.poisson(rate(second)))) for second in range(length_s)]
    )
    kinds = np.array(list(KINDS.values()))
    of = np.empty(len(starts), dtype=int)
    for index, start in enumerate(starts):
        weights = np.array(mix(start))
        of[index] = rng.choice(len(kinds), p=weights / weights.sum())
    fps, duty, asks_s = kinds[of].T
    ends = starts + rng.exponential(lasts_s, len(starts))
    phase_s = rng.uniform(0.0, 600.0, len(starts))
    return Trace(length_s, starts, ends, fps, duty, asks_s, phase_s, losses_s)


def traces(seed: int, sessions: float, lasts_s: float = 600.0) -> dict[str, Trace]:
    """Four traces.

    ``steady``: as many sessions all the time, of kinds that shift over the hours. ``wave``: a day,
    quiet at night, when cameras are most of it, with sport in the evening. ``flash``: within two
    minutes a crowd comes to one event. ``loss``: as ``steady``, and replicas are lost, two of them
    within half a minute.

    Args:
        sessions: live at once, on average where it is steady, at the top of the wave.
        lasts_s: of a session, on average.
    """
    steady = sessions / lasts_s

    def shifting(second: float) -> tuple[float, ...]:
        swing = math.sin(2 * math.pi * second / (2 * _HOUR))
        return 0.3, 0.3, 0.2 + 0.15 * swing, 0.2 - 0.15 * swing

    def wave(second: float) -> float:
        return steady * (0.55 - 0.45 * math.cos(2 * math.pi * second / _DAY))

    def daily(second: float) -> tuple[float, ...]:
        evening = math.exp(-(((second / _HOUR - 20.0) / 2.0) ** 2))
        night = 0.5 + 0.5 * math.cos(2 * math.pi * second / _DAY)
        return 0.2 + 0.8 * night, 0.4, 0.1 + 0.9 * evening, 0.4 * (1.0 - evening)

    def flash(second: float) -> float:
        return steady * (0.3 + (5.0 if 2400 <= second < 2520 else 0.0))

    def crowd(second: float) -> tuple[float, ...]:
        return (0.0, 0.2, 0.8, 0.0) if 2400 <= second < 2520 else (0.3, 0.3, 0.2, 0.2)

    def seeded(trace: int) -> np.random.Generator:
        return np.random.default_rng((seed, trace))

    def level(_: float) -> float:
        return steady

    losses_s = (3600, 7200, 7230, 10_800)
    return {
        "steady": _trace(seeded(0), 4 * _HOUR, lasts_s, level, shifting),
        "wave": _trace(seeded(1), _DAY, lasts_s, wave, daily),
        "flash": _trace(seeded(2), 2 * _HOUR, lasts_s, flash, crowd),
        "loss": _trace(seeded(3), 4 * _HOUR, lasts_s, level, shifting, losses_s),
    }
