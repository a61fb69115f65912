"""What live work takes of a replica's time, from made-up steps and sessions.

Guards against a replica that is thought free and falls behind, or thought full and left idle.
"""

from __future__ import annotations

import random

import pytest

from serve.live.pace import STEP_S, Pace, StepTimes


def _steps(fixed: float, each: float, most: int = 20) -> StepTimes:
    times, rng, now = StepTimes(), random.Random(0), 0.0
    for _ in range(300):
        units = rng.randint(1, most)
        seconds = (fixed + each * units) * rng.uniform(0.9, 1.1)
        now += seconds
        times.stepped(now, seconds, units, 0, 0)
    return times


def test_fixed_and_marginal_cost_are_told_apart() -> None:
    """Guards against replicas that look full because small steps cost nearly as much as large
    ones."""
    fixed, each = _steps(0.05, 0.002).cost
    assert fixed == pytest.approx(0.05, rel=0.15)
    assert each == pytest.approx(0.002, rel=0.15)


def test_steps_that_are_all_alike_count_whole() -> None:
    assert StepTimes().cost == (0.0, 0.0)
    fixed, each = _steps(0.05, 0.002, most=1).cost
    assert fixed == pytest.approx(0.0, abs=1e-9)
    assert each == pytest.approx(0.052, rel=0.05)


def test_old_steps_fade() -> None:
    times = _steps(0.0, 0.1)
    for n in range(200):
        times.stepped(1000.0 + n, 0.02, 2, 0, 0)
    assert times.cost[1] == pytest.approx(0.01, rel=0.05)


def _watched(pace: Pace, seconds: int, frames_a_second: float, fps: float = 2.0) -> None:
    for now in range(seconds + 1):
        pace.look(float(now), {"s": (int(now * frames_a_second), fps)})


def test_live_work_is_what_comes_times_what_it_costs() -> None:
    pace = Pace(_steps(0.0, 0.1))
    _watched(pace, 60, 2.0)
    assert pace.rate("s") == pytest.approx(2.0, rel=0.01)
    assert pace.live == pytest.approx(0.2, rel=0.1)
    pace.look(61.0, {})
    assert (pace.live, pace.rate("s")) == (0.0, 0.0)


def test_a_step_with_much_that_is_fixed_leaves_less() -> None:
    pace = Pace(_steps(STEP_S / 2, 0.1))
    _watched(pace, 60, 2.0)
    assert pace.live == pytest.approx(0.4, rel=0.15)


def test_recorded_video_counts_as_its_stream_would() -> None:
    """Guards against new replicas for one client that sends an hour at once: they could not help
    it, and a session stays where it is."""
    pace = Pace(_steps(0.0, 0.1))
    _watched(pace, 60, 500.0)
    assert pace.rate("s") == pytest.approx(2.0, rel=0.01)
    assert pace.behind_s({"s": 500}, {"s": 2.0}, 0) == pytest.approx(0.4, rel=0.1)


def test_a_session_that_came_from_elsewhere_did_not_bring_its_past_now() -> None:
    pace = Pace(_steps(0.0, 0.1))
    for now in range(3):
        pace.look(float(now), {"s": (5000, 2.0)})
    assert pace.rate("s") == 0.0


def test_words_that_are_said_count_as_work() -> None:
    pace = Pace()
    for now in range(60):
        for _ in range(5):
            pace.steps.stepped(float(now), 0.1, 0, 1, 0)
        pace.look(float(now), {})
    assert pace.live == pytest.approx(0.5, rel=0.1)
    pace.steps.stepped(60.0, 0.1, 0, 1, 15)
    for now in range(60, 120):
        pace.look(float(now), {})
    # Guards against a replica that never rests and so never goes.
    assert pace.live == 0.0
    assert pace.behind_s({}, {}, 2) == pytest.approx(2 * 313 / 16 * 0.1, rel=0.1)
