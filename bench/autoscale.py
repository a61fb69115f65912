"""Our autoscaling policy beside Ray Serve's, simulated: ``python -m bench.autoscale --json``.

Serve's scales by calls. The target and the delays that suit a service are not known beforehand, so
it is given the best there are: for each trace and seed, of a few delays those with which least is
late, with the target by which it uses as many replica-hours as ours, or a few more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from typing import Any

import numpy as np

from bench.arrivals import KINDS, Trace, traces
from bench.autoscale_sim import (
    Default,
    Outcome,
    Simulation,
    World,
    live_sessions,
    ours,
    targets,
)
from bench.harness import ratio, run
from serve.scaling import Aims

SESSIONS = 200.0
#: Serve's ``upscale_delay_s`` and ``downscale_delay_s`` that are tried; the first are its defaults.
DELAYS_S = ((30, 600), (30, 120), (0, 600), (0, 120))
#: Targets between which Serve's is sought.
_LEAST, _MOST = 5.0, 80.0


def target_for(
    calls: Sequence[int], delays_s: tuple[int, int], first: int, hours: float, looks: int
) -> float:
    """The highest target with which Ray Serve's policy uses no less than ``hours`` replica-hours.

    Args:
        calls: live sessions in each second.
        delays_s: before it goes up, and before it goes down.
        first: replicas at the beginning.
        looks: targets that are tried; each halves the interval.
    """
    low, high = _LEAST, _MOST
    for _ in range(looks):
        target = (low + high) / 2
        if targets(calls, Default(target, *delays_s), first).sum() / 3600 >= hours:
            low = target
        else:
            high = target
    return low


@dataclass(frozen=True)
class Tuned:
    """Ray Serve's policy as it does best.

    Attributes:
        delays_s: before it goes up, and before it goes down.
        target: calls for each replica.
        outcome: what came of it.
    """

    delays_s: tuple[int, int]
    target: float
    outcome: Outcome


def tuned_default(trace: Trace, world: World, hours: float, looks: int) -> Tuned:
    """Ray Serve's policy with those of ``DELAYS_S`` with which least is late: ``target_for``."""
    calls, found = live_sessions(trace), []
    for delays_s in DELAYS_S:
        target = target_for(calls, delays_s, world.first, hours, looks)
        outcome = Simulation(trace, world, Default(target, *delays_s)).run()
        found.append(Tuned(delays_s, target, outcome))
    return min(found, key=lambda one: one.outcome.late_s)


@dataclass(frozen=True)
class Compared:
    """Both policies over one trace.

    Attributes:
        length_s: of the trace.
        relieved: sessions that ours moved from replicas that were behind.
        default: Serve's.
    """

    length_s: int
    ours: Outcome
    relieved: int
    default: Tuned


def compare(name: str, seed: int, looks: int) -> Compared:
    """Ours over a trace, and Serve's with as many replica-hours; see ``tuned_default``."""
    trace, world = traces(seed, SESSIONS)[name], World()
    one = Simulation(trace, world, ours())
    mine = one.run()
    other = tuned_default(trace, world, mine.replica_hours, looks)
    return Compared(trace.length_s, mine, one.relieved, other)


def all_compared(names: list[str], seeds: int, looks: int) -> Iterator[tuple[str, int, Compared]]:
    """(trace, seed, what came of it), on all cores: a run of a day's trace takes a while."""
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as cores:
        waiting = [
            (name, seed, cores.submit(compare, name, seed, looks))
            for seed in range(seeds)
            for name in names
        ]
        for name, seed, compared in waiting:
            yield name, seed, compared.result()


def _shown(outcome: Outcome, every_s: int) -> dict[str, Any]:
    """Means over stretches, for a plot."""

    def stretches(values: Any) -> list[float]:
        n = len(values) // every_s * every_s
        return np.round(values[:n].reshape(-1, every_s).mean(axis=1), 2).tolist()

    return {
        "replicas": stretches(outcome.replicas_by_s),
        "late": stretches(outcome.late_by_s),
        "sessions": stretches(outcome.sessions_by_s),
    }


def measure(quick: bool) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Both policies over every trace; nothing here depends on the machine."""
    # Fewer looks would leave Serve's policy more replicas than ours, and be no comparison.
    seeds, looks = 1 if quick else 5, 12
    names = list(traces(0, 1.0))
    late: dict[str, list[float]] = {name: [] for name in names}
    hours: dict[str, list[float]] = {name: [] for name in names}
    figures: dict[str, Any] = {name: {"ours": [], "default": []} for name in names}
    for name, seed, found in all_compared(names, seeds, looks):
        default = found.default.outcome
        late[name].append(found.ours.late_s / max(1.0, default.late_s))
        hours[name].append(found.ours.replica_hours / default.replica_hours)
        settings_of_default: dict[str, Any] = {
            "target_calls": found.default.target,
            "delays_s": found.default.delays_s,
        }
        sides: dict[str, tuple[Outcome, dict[str, Any]]] = {
            "ours": (found.ours, {"relieved_sessions": found.relieved}),
            "default": (default, settings_of_default),
        }
        for side, (outcome, more) in sides.items():
            figures[name][side].append(
                {
                    "late_session_s": outcome.late_s,
                    "late_share": round(outcome.late_s / outcome.live_s, 6),
                    "replica_hours": round(outcome.replica_hours, 3),
                    "most_replicas": outcome.most,
                    **more,
                }
            )
        if not seed:
            every_s = found.length_s // 240
            figures[name]["every_s"] = every_s
            figures[name]["shown"] = {
                side: _shown(outcome, every_s) for side, (outcome, _) in sides.items()
            }
    ratios = {}
    for name in names:
        ratios[f"{name}_violations_over_default"] = ratio(late[name])
        ratios[f"{name}_replica_hours_over_default"] = ratio(hours[name])
    settings = {
        "sessions": SESSIONS,
        "seeds": seeds,
        "world": asdict(World()),
        "aims": asdict(Aims()),
        "kinds": KINDS,
        "delays_s": DELAYS_S,
    }
    return settings, ratios, figures


if __name__ == "__main__":
    run("autoscale", measure)
