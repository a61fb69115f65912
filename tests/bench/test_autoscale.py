"""The simulator of autoscaling, and that its verdict is not bought.

Guards against a policy that seems good because the simulator forgets what it costs.
"""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from bench.arrivals import Trace, traces
from bench.autoscale import tuned_default
from bench.autoscale_sim import (
    Default,
    Seen,
    Simulation,
    World,
    live_sessions,
    ours,
    targets,
)
from bench.kept import read_all
from serve.scaling import Aims

WORLD = World()


def _same(n: int, length_s: int, fps: float = 2.0, at_s: float = 0.0) -> Trace:
    """``n`` sessions that come at once, are all alike and stay."""
    full = np.full(n, 1.0)
    return Trace(length_s, full * at_s, full * 1e9, full * fps, full, full * 1e9, full * 300.0, ())


def _fixed(count: int) -> Simulation:
    return Simulation(_same(30, 600), World(first=count), lambda _: count)


def test_enough_replicas_are_never_late_and_too_few_always() -> None:
    """30 sessions of 2 frames a second are 60 of the 70 that a replica does."""
    assert _fixed(1).run().late_s == 0.0
    outcome = Simulation(_same(50, 600), World(first=1), lambda _: 1).run()
    assert outcome.late_s > 0.9 * outcome.live_s


def test_replica_hours_are_counted_from_the_decision() -> None:
    assert _fixed(2).run().replica_hours == 2 * 600 / 3600
    grown = Simulation(_same(30, 600), World(first=1), lambda seen: 1 + (seen.now_s >= 300)).run()
    assert abs(grown.replica_hours - 900 / 3600) < 2 / 3600


def test_a_lost_replica_costs_its_sessions_a_move() -> None:
    trace = _same(20, 600)
    lossy = Trace(**{**trace.__dict__, "losses_s": (300,)})
    late = Simulation(lossy, World(first=2), lambda _: 2).run().late_s
    assert late == 10 * WORLD.move_s


def test_sessions_leave_a_replica_that_is_behind_for_one_that_is_not() -> None:
    """Guards relief: all of a crowd is placed before there is a second replica."""
    run = Simulation(_same(50, 600), World(first=1), lambda _: 2)
    outcome = run.run()
    assert 10 <= run.relieved <= 25
    assert not outcome.late_by_s[300:].any()


def test_serves_own_policy_waits_and_averages_as_its_settings_say() -> None:
    """Guards the other side: 30 s of delay up, 600 down, means over 30 s that come every 10."""
    policy = Default(10.0)
    target, ups, calls = 1, [], []
    for now in range(200):
        calls.append(5 if now < 50 else 25)
        new = policy(Seen(now, calls, [], target))
        if new != target:
            ups.append((now, new))
        target = new
    # At 60 the mean of the last 30 s is over ten for the first time, from 80 on it is 25.
    assert ups[0][0] in range(90, 101)
    assert target == 3
    downs = []
    for now in range(200, 1200):
        calls.append(5)
        new = policy(Seen(now, calls, [], target))
        if new != target:
            downs.append(now)
        target = new
    assert len(downs) == 1
    assert downs[0] - 220 in range(590, 620)


@pytest.mark.slow
def test_serves_replicas_are_known_without_a_simulation() -> None:
    """Guards the search of its target: replica-hours that a run would not use."""
    trace = traces(3, 50.0)["flash"]
    cut = Trace(**{**trace.__dict__, "length_s": 3600, "losses_s": (1000, 2500)})
    run = Simulation(cut, WORLD, Default(4.0, 0, 120)).run()
    calls = live_sessions(cut)
    assert calls == run.sessions_by_s.tolist()
    found = targets(calls, Default(4.0, 0, 120), WORLD.first)
    assert found.tolist() == run.replicas_by_s.tolist()
    assert len(set(found.tolist())) > 5


@pytest.mark.slow
def test_traces_are_the_same_for_a_seed() -> None:
    first, again, other = (traces(seed, 50.0)["flash"] for seed in (1, 1, 2))
    assert np.array_equal(first.starts, again.starts)
    assert not np.array_equal(first.starts[:10], other.starts[:10])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["flash", pytest.param("steady", marks=pytest.mark.long)])
def test_ours_is_late_less_at_no_more_replica_hours(name: str) -> None:
    """Guards the claim on the two short traces; ``bench.autoscale`` has all, over five seeds."""
    trace = traces(11, 200.0)[name]
    mine = Simulation(trace, WORLD, ours()).run()
    other = tuned_default(trace, WORLD, mine.replica_hours, 9).outcome
    assert other.replica_hours >= mine.replica_hours
    assert mine.late_s < 0.8 * other.late_s


def test_the_kept_figures_are_of_this_policy_and_better_on_every_trace() -> None:
    """Guards the claim on the traces that take too long here, and against figures of older aims."""
    kept, *_ = (each for each in read_all() if each.bench == "autoscale" and not each.quick)
    assert kept.data["settings"]["aims"] == asdict(Aims())
    assert kept.data["settings"]["world"] == asdict(WORLD)
    ratios = kept.data["ratios"]
    for name in traces(0, 1.0):
        assert ratios[f"{name}_violations_over_default"]["max"] < 1.0
        assert ratios[f"{name}_replica_hours_over_default"]["max"] <= 1.0
