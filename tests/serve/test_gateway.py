"""Calls on replicas outside of sessions.

Guards what a client is told where none answers, and what it does then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, RayTaskError
from ray.serve.exceptions import BackPressureError

from serve import gateway
from serve.gateway import _asked
from serve.live.items import SessionError
from serve.routable import ROUTABLE


async def _raising(failure: BaseException) -> None:
    raise failure


async def _waiting() -> None:
    await asyncio.sleep(60)


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda: _raising(ActorDiedError()), "unavailable"),
        (lambda: _raising(BackPressureError(1, 1)), "overloaded"),
        (_waiting, "unavailable"),
    ],
)
def test_a_replica_that_is_lost_is_no_fault_of_ours(
    call: Callable[[], Awaitable[Any]], code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against 500, which no client asks again after, and a wait without end."""
    monkeypatch.setattr(gateway, "PATIENCE_S", 0.01)
    with pytest.raises(SessionError) as refused:
        asyncio.run(_asked(call()))
    assert refused.value.code == code


def test_what_the_model_could_not_do_is_told_as_it_is() -> None:
    failure = RayTaskError("chat", "ModelError: no room", ValueError("no room"))
    with pytest.raises(RayTaskError):
        asyncio.run(_asked(_raising(failure)))


def test_an_answer_takes_its_time_once_a_replica_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a long answer that is cut since its replica had to be started first."""
    there: set[str] = set()
    monkeypatch.setattr(gateway, "PATIENCE_S", 0.1)
    monkeypatch.setattr(gateway, "_LOOK_S", 0.01)
    monkeypatch.setattr(ROUTABLE, "there", lambda: there)

    async def call() -> str:
        await asyncio.sleep(0.03)
        there.add("replica")
        await asyncio.sleep(0.2)
        return "answer"

    assert asyncio.run(_asked(call())) == "answer"
