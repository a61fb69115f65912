"""Our autoscaling policy beside Ray Serve's, simulated: ``python -m bench.autoscale --json``.

Serve's scales by calls, and has its default delays. The target that suits a service is not known
beforehand, so it is given the best there is: for each trace and seed, the one with which it uses as
many replica-hours as ours, or a few more.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from typing import Any

import numpy as np

from bench.arrivals import KINDS, Trace, traces
from bench.autoscale_sim import Default, Outcome, Simulation, World, ours
from bench.harness import ratio, run
from serve.scaling import Aims

SESSIONS = 200.0
#: Targets between which Serve's is sought.
_LEAST, _MOST = 5.0, 80.0


def default_with(trace: Trace, world: World, hours: float, looks: int) -> tuple[float, Outcome]:
    """Ray Serve's policy with the highest target that uses no less than ``hours`` replica-hours.

    Args:
        looks: targets that are tried; each halves the interval.

    Returns:
        The target, and what came of it.
    """
    low, high = _LEAST, _MOST
    found = low, Simulation(trace, world, Default(low)).run()
    for _ in range(looks):
        target = (low + high) / 2
        outcome = Simulation(trace, world, Default(target)).run()
        if outcome.replica_hours >= hours:
            low, found = target, (target, outcome)
        else:
            high = target
    return found


@dataclass(frozen=True)
class Compared:
    """Both policies over one trace.

    Attributes:
        length_s: of the trace.
        relieved: sessions that ours moved from replicas that were behind.
        target: with which Serve's was run.
    """

    length_s: int
    ours: Outcome
    relieved: int
    target: float
    default: Outcome


def compare(name: str, seed: int, looks: int) -> Compared:
    """Ours over a trace, and Serve's with as many replica-hours; see ``default_with``."""
    trace, world = traces(seed, SESSIONS)[name], World()
    one = Simulation(trace, world, ours())
    mine = one.run()
    target, other = default_with(trace, world, mine.replica_hours, looks)
    return Compared(trace.length_s, mine, one.relieved, target, other)


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
    seeds, looks = 1 if quick else 5, 9
    names = list(traces(0, 1.0))
    late: dict[str, list[float]] = {name: [] for name in names}
    hours: dict[str, list[float]] = {name: [] for name in names}
    figures: dict[str, Any] = {name: {"ours": [], "default": []} for name in names}
    for name, seed, found in all_compared(names, seeds, looks):
        late[name].append(found.ours.late_s / max(1.0, found.default.late_s))
        hours[name].append(found.ours.replica_hours / found.default.replica_hours)
        sides = {
            "ours": (found.ours, "relieved_sessions", found.relieved),
            "default": (found.default, "target_calls", found.target),
        }
        for side, (outcome, key, value) in sides.items():
            figures[name][side].append(
                {
                    "late_session_s": outcome.late_s,
                    "late_share": round(outcome.late_s / outcome.live_s, 6),
                    "replica_hours": round(outcome.replica_hours, 3),
                    "most_replicas": outcome.most,
                    key: value,
                }
            )
        if not seed:
            every_s = found.length_s // 240
            figures[name]["every_s"] = every_s
            figures[name]["shown"] = {
                side: _shown(outcome, every_s) for side, (outcome, _, _) in sides.items()
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
    }
    return settings, ratios, figures


if __name__ == "__main__":
    run("autoscale", measure)
