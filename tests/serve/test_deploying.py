"""Deploying while replicas die: what Ray Serve calls a failure and mends is none.

Guards against a service that scales and is told to have failed because a replica was lost just
then, and against one that cannot start and waits for ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from ray import serve

from longreel.errors import LongreelError
from mod.checkpoint import TINY
from serve import app
from serve.app import ReplicaPlan, deploy
from serve.handles import APP

FAILED = "DEPLOY_FAILED"


def looks(*states: tuple[str, str, str]) -> Iterator[SimpleNamespace]:
    """What ``serve.status`` says, look by look: of the application, the replicas, and why."""
    for whole, replicas, trigger in states:
        replica = SimpleNamespace(status=replicas, status_trigger=trigger, message="ValueError: no")
        gateway = SimpleNamespace(status="HEALTHY", status_trigger="UNSPECIFIED", message="")
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
