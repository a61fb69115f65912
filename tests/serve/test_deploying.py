"""Deploying while replicas die: what Ray Serve calls a failure and mends is none.

Guards against a service that scales and is told to have failed because a replica was lost just
then, and against one that cannot start and waits for ever.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from ray import serve

from longreel.errors import LongreelError, UsageError
from mod.checkpoint import TINY
from serve import app
from serve.app import ReplicaPlan, deploy, ensure
from serve.handles import APP
from serve.served import Served

FAILED = "DEPLOY_FAILED"


def looks(*states: tuple[str, str, str]) -> Iterator[SimpleNamespace]:
    """What ``serve.status`` says, look by look: of the application, the replicas, and why."""
    for whole, replicas, trigger in states:
        replica = SimpleNamespace(status=replicas, status_trigger=trigger, message="ValueError: no")
        replica.replica_states = {}
        gateway = SimpleNamespace(status="HEALTHY", status_trigger="UNSPECIFIED", message="")
        gateway.replica_states = {}
        of = SimpleNamespace(status=whole, deployments={"gateway": gateway, "replica": replica})
        yield SimpleNamespace(applications={APP: of})


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Ray Serve says that deploying failed."""

    def run(*_: object, **__: object) -> None:
        raise RuntimeError("Deploying application longreel failed: Failed to update.")

    monkeypatch.setattr(serve, "start", lambda **_: None)
    monkeypatch.setattr(serve, "run", run)
    monkeypatch.setattr(app, "_LOOK_S", 0.0)
    return monkeypatch


def test_a_replica_that_dies_meanwhile_is_waited_for(failing: pytest.MonkeyPatch) -> None:
    lost = FAILED, FAILED, "HEALTH_CHECK_FAILED"
    seen = looks(lost, lost, ("RUNNING", "HEALTHY", "UNSPECIFIED"))
    failing.setattr(serve, "status", lambda: next(seen))
    deploy(ReplicaPlan(TINY), http=None)
    assert next(seen, None) is None


@pytest.mark.parametrize(
    "then",
    [
        (FAILED, FAILED, "REPLICA_STARTUP_FAILED"),
        (FAILED, "HEALTHY", "UNSPECIFIED"),
    ],
    ids=["its successor cannot start", "something else failed"],
)
def test_what_stays_failed_is_an_error(
    failing: pytest.MonkeyPatch, then: tuple[str, str, str]
) -> None:
    lost = FAILED, FAILED, "HEALTH_CHECK_FAILED"
    seen = looks(lost, then, then)
    failing.setattr(serve, "status", lambda: next(seen))
    with pytest.raises(LongreelError, match="did not start: no"):
        deploy(ReplicaPlan(TINY), http=None)


def test_a_service_that_is_gone_is_an_error(failing: pytest.MonkeyPatch) -> None:
    failing.setattr(serve, "status", lambda: SimpleNamespace(applications={}))
    with pytest.raises(LongreelError, match="Failed to update"):
        deploy(ReplicaPlan(TINY), http=None)


class Joining:
    """A job that wants a model, on a cluster as ``looks`` has it; notes what it deploys."""

    def __init__(self, patch: pytest.MonkeyPatch, states: Sequence[Any], served: Served) -> None:
        self.deployed: list[ReplicaPlan] = []
        answers = iter(states)
        replica = SimpleNamespace(describe=SimpleNamespace(remote=lambda: self._told(served)))
        patch.setattr(serve, "status", lambda: next(answers))
        patch.setattr(app, "replica_handle", lambda: replica)
        patch.setattr(app, "deploy", lambda plan, http: self.deployed.append(plan))
        patch.setattr(app, "_LOOK_S", 0.0)

    @staticmethod
    def _told(served: Served) -> Any:
        return SimpleNamespace(result=lambda: served)


WANTED = Served(TINY, "abc", 0.2)
NOTHING = SimpleNamespace(applications={})


def without_gateway(state: SimpleNamespace) -> SimpleNamespace:
    """The same of replicas that serve bulk jobs alone."""
    del state.applications[APP].deployments["gateway"]
    return state


@pytest.mark.parametrize("amid", ["DEPLOYING", "UNHEALTHY", FAILED])
def test_a_job_replaces_no_service_that_is_not_whole(
    monkeypatch: pytest.MonkeyPatch, amid: str
) -> None:
    """Guards against a job that begins while a replica of a live service is started anew, and
    takes the gateway and its sessions away."""
    states = looks(
        (amid, FAILED if amid == FAILED else "UNHEALTHY", "HEALTH_CHECK_FAILED"),
        ("RUNNING", "HEALTHY", "UNSPECIFIED"),
    )
    job = Joining(monkeypatch, list(states), WANTED)
    ensure(ReplicaPlan(TINY), WANTED)
    assert not job.deployed


def test_a_job_replaces_no_other_job_s_replicas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against rows of a job whose replicas another one changed while they came up."""
    first, second = looks(
        ("DEPLOYING", "UPDATING", "CONFIG_UPDATE_STARTED"), ("RUNNING", "HEALTHY", "UNSPECIFIED")
    )
    job = Joining(monkeypatch, [without_gateway(s) for s in (first, second)], WANTED)
    with pytest.raises(UsageError, match="the job wants norm"):
        ensure(ReplicaPlan(TINY, router="norm"), replace(WANTED, router="norm"))
    assert not job.deployed


def test_what_two_jobs_deployed_at_once_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against the one of two that was too late: its replicas are the other's."""
    job = Joining(monkeypatch, [NOTHING], replace(WANTED, quantize="int8"))
    with pytest.raises(UsageError, match="weights int8"):
        ensure(ReplicaPlan(TINY), WANTED)
    assert job.deployed == [ReplicaPlan(TINY)]


def test_replicas_that_failed_for_good_are_replaced_but_no_service(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Guards against a cluster that takes no job any more after one whose model cannot be had."""
    failed = (FAILED, FAILED, "REPLICA_STARTUP_FAILED")
    job = Joining(monkeypatch, list(map(without_gateway, looks(failed))), WANTED)
    ensure(ReplicaPlan(TINY), WANTED)
    assert job.deployed == [ReplicaPlan(TINY)]
    job = Joining(monkeypatch, list(looks(failed, failed)), WANTED)
    with pytest.raises(LongreelError, match="service on this cluster does not start: no"):
        ensure(ReplicaPlan(TINY), WANTED)
    assert not job.deployed


@pytest.mark.parametrize("kind", ["bulk", "with a replica", "service"])
def test_replicas_that_never_come_up_do_not_block_later_jobs(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Guards against a cluster that takes no job any more after one that asked for what it has not,
    and against a service that is replaced since it has waited for long."""
    coming = ("DEPLOYING", "UPDATING", "CONFIG_UPDATE_STARTED")
    states = list(looks(*[coming] * 5, ("RUNNING", "HEALTHY", "UNSPECIFIED")))
    for state in states:
        if kind != "service":
            without_gateway(state)
        if kind == "with a replica":
            state.applications[APP].deployments["replica"].replica_states["RUNNING"] = 1
    job = Joining(monkeypatch, states, WANTED)
    monkeypatch.setattr(app, "_GIVEN_UP_S", 0.05)
    monkeypatch.setattr(app, "_LOOK_S", 0.03)
    ensure(ReplicaPlan(TINY), WANTED)
    assert bool(job.deployed) == (kind == "bulk")
