"""How many replicas are wanted, as pure decisions over made-up reports.

Guards against replicas that come late, go while they are needed, or swing with noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from ray import cloudpickle

from serve.scaling import Aims, ReplicaPolicy, Report, Scaler, reports_of, wanted

AIMS = Aims(busy=0.5, cache=0.8, catch_up_s=10.0, bulk=2.0, hold_s=60.0, empty_s=300.0)


def _busy(live: float, n: int = 1, **fields: float) -> list[Report]:
    return [Report(live=live, sessions=10.0, **fields)] * n


def test_each_kind_of_work_asks_for_replicas() -> None:
    assert wanted(_busy(0.5, 2), AIMS) == pytest.approx(2.0)
    assert wanted(_busy(0.1, 2, cache=0.8), AIMS) == pytest.approx(2.0)
    assert wanted([Report(bulk=8.0)], AIMS) == pytest.approx(4.0)
    assert wanted(_busy(0.5, 1, behind_s=5.0), AIMS) == pytest.approx(1.25)
    assert wanted([Report()], AIMS) == 0.0


def test_bulk_work_fills_what_live_work_leaves() -> None:
    assert wanted([Report(live=0.5, bulk=2.0, sessions=5.0)], AIMS) == pytest.approx(1.0)


def test_calls_are_not_work() -> None:
    """Guards the claim: sessions in which nothing happens want a place and no more replicas."""
    need = wanted([Report(sessions=500.0, cache=0.1)], AIMS)
    assert 0.0 < need <= 1.0


def test_sessions_that_find_no_room_want_at_least_one_more() -> None:
    assert wanted(_busy(0.5, 2, waiting_sessions=1.0), AIMS) == pytest.approx(3.0)
    # As many as there are: twice the replicas, not one more each second that they wait.
    assert wanted(_busy(0.5, 2, waiting_sessions=20.0), AIMS) == pytest.approx(4.0)


def test_one_replica_that_is_hopelessly_behind_does_not_buy_a_fleet() -> None:
    """Guards against replicas for a backlog that stays where it is."""
    assert wanted(_busy(0.5, 1, behind_s=10_000.0), AIMS) == pytest.approx(1.5)


@dataclass
class _Run:
    """A scaler that is asked every two seconds."""

    target: int
    scaler: Scaler = field(default_factory=lambda: Scaler(AIMS))
    now_s: float = 0.0

    def go(self, seconds: float, reports: Callable[[float], list[Report]]) -> list[int]:
        """The targets, one for each look."""
        told, began = [], self.now_s
        while self.now_s < began + seconds:
            self.target = self.scaler.decide(reports(self.now_s), self.target, self.now_s)
            told.append(self.target)
            self.now_s += 2.0
        return told


def test_more_are_wanted_at_once() -> None:
    assert _Run(1).go(2, lambda _: _busy(1.0)) == [2]


def test_fewer_are_wanted_after_a_while_and_never_less_than_was_needed_in_it() -> None:
    """Guards against replicas that come and go with each lull; each going moves its sessions."""
    run = _Run(4)
    told = run.go(200, lambda now: _busy(1.4 if 30.0 <= now < 32.0 else 0.2))
    # The peak at 30 s needs three; only when it is a minute ago do fewer do.
    assert told[0] == 4
    assert min(told[: 90 // 2]) >= 3
    assert told[-1] == 1


def test_a_rise_is_met_before_it_is_there() -> None:
    """Guards the lead: a replica that starts when it is needed comes 45 s late."""

    def rising(now: float) -> list[Report]:
        return _busy(0.2 + 0.005 * now)

    ahead, behind = _Run(1), _Run(1, Scaler(Aims(busy=0.5, lead_s=0.0)))
    first = [next(i for i, n in enumerate(run.go(200, rising)) if n > 1) for run in (ahead, behind)]
    assert first[0] * 2 + 20 < first[1] * 2


def test_replicas_heard_of_one_by_one_are_no_rise() -> None:
    """Guards against a fleet that doubles since the controller began anew: it hears of a replica
    when that has its turn."""
    targets = _Run(10).go(300, lambda now: [Report(live=0.4)] * min(10, 1 + int(now)))
    assert max(targets) == 10


def test_noise_is_no_rise() -> None:
    targets = _Run(1).go(300, lambda now: _busy(0.42 + 0.02 * (now // 2 % 2)))
    assert set(targets) == {1}


def test_the_last_one_goes_only_where_there_is_nothing_at_all() -> None:
    idle = _Run(1)
    assert idle.go(298, lambda _: [Report()]) == [1] * 149
    assert idle.go(10, lambda _: [Report()])[-1] == 0
    assert set(_Run(1).go(1000, lambda _: [Report(sessions=1.0)])) == {1}


def test_nothing_known_changes_nothing() -> None:
    """Guards against a fleet that is ended because a controller that began anew has no reports."""
    assert set(_Run(5).go(600, lambda _: [])) == {5}


@dataclass
class _Value:
    value: float


@dataclass
class _Context:
    raw_metrics: dict[str, dict[str, list[_Value]]]
    target_num_replicas: int = 1
    current_time: float = 0.0
    policy_state: dict[str, Any] = field(default_factory=dict)


def test_the_last_value_of_each_replica_is_read() -> None:
    metrics = {
        "live": {"a": [_Value(0.1), _Value(0.7)], "b": [_Value(0.2)]},
        "cache": {"a": [_Value(0.3)], "b": []},
        "something else": {"c": [_Value(1.0)]},
    }
    found = sorted(reports_of(metrics), key=lambda report: report.live)
    assert found == [Report(live=0.2), Report(live=0.7, cache=0.3)]


def test_ray_serve_can_be_sent_it() -> None:
    """Guards the way into Serve's controller: by value, with settings that are JSON."""
    policy = cloudpickle.loads(cloudpickle.dumps(ReplicaPolicy))(busy=0.5)
    context = _Context({"live": {"a": [_Value(2.0)]}})
    assert policy(context) == (4, {})
    # Asked ten times a second, it looks once.
    context.target_num_replicas, context.current_time = 4, 0.1
    context.raw_metrics["live"]["a"] = [_Value(9.0)]
    assert policy(context) == (4, {})
    context.current_time = 1.2
    assert policy(context) == (18, {})
    # A clock that is set back stops nothing.
    context.target_num_replicas, context.current_time = 18, -100.0
    context.raw_metrics["live"]["a"] = [_Value(11.0)]
    assert policy(context) == (22, {})
