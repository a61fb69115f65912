"""Chats' sessions that a replica which is there has no more: on a real engine, without Ray.

Guards against a chat that waits for ever for an answer of a session that has lost its past.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import torch

from serve import pinned
from serve.brief import MOST_BEGINNINGS
from serve.live.calls import SessionCalls
from serve.live.items import Frame, Question, SessionError, SessionEvent, SessionOptions
from serve.live.owner import Owner
from serve.pinned import PinnedSessions
from serve.routable import ROUTABLE
from tests.mod.small import some_frames
from tests.serve.live.owners import make_owner

# Engines of several tests would wait for each other's threads.
torch.set_num_threads(1)
FRAMES = some_frames(6, seed=1).numpy()
OPTIONS = SessionOptions(memory="full", durable=False, asked=False, max_tokens=5)
IDLE_S = 120.0


class _Replica:
    """Handles to the one replica, in this process."""

    def __init__(self, owner: Owner) -> None:
        self._calls = SessionCalls(owner)

    def options(self, *, method_name: str, **_: Any) -> Any:
        return getattr(self, method_name)

    def __getattr__(self, method: str) -> Any:
        call = getattr(self._calls, method)

        class Handle:
            async def remote(self, *args: Any, **ids: Any) -> Any:
                return await call(*args, **ids)

        return Handle()


@pytest.fixture(autouse=True)
def _there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ROUTABLE, "there", lambda: frozenset({"alone"}))
    monkeypatch.setattr(ROUTABLE, "has", lambda _: True)


def _chat(sessions: PinnedSessions) -> Callable[[int, int], Awaitable[list[Any]]]:
    """Gives frames, then asks, and listens: what is told up to the end of the answer."""
    told: list[SessionEvent] = []

    async def go_on(first: int, end: int) -> list[Any]:
        await sessions.give("chat", [Frame(pixels) for pixels in FRAMES[first:end]])
        (asked,) = await sessions.give("chat", [Question("Why?")])
        while True:
            after = told[-1].number if told else 0
            told.extend(await sessions.events("chat", after, 0.05))
            done = [e.data["response"] for e in told if e.type == "response.done"]
            if asked.response in done:
                return [(e.number, e.type, e.data.get("text")) for e in told]

    return go_on


async def _failed(owner: Owner, patch: pytest.MonkeyPatch) -> None:
    """Of the replica: a step fails, for the sake of whomever, and all sessions are lost."""
    with patch.context() as patched:
        patched.setattr(owner._loop.engine, "step", _raise)
        await owner._loop.use(lambda _: owner._loop._step())


def _raise() -> Any:
    raise RuntimeError("the device is gone")


async def _idle(owner: Owner, _: pytest.MonkeyPatch) -> None:
    """Of the chat: it was decoding for longer than a session may be silent."""
    for session in owner._sessions.values():
        session.used = time.monotonic() - IDLE_S - 1
    await owner._look_after()
    assert not owner._sessions


async def _declared_lost(owner: Owner, _: pytest.MonkeyPatch) -> None:
    """Of the replica: it was silent, and is another owner now."""
    await owner._begin_anew(owner.name)


@pytest.mark.slow
@pytest.mark.parametrize("befalls", [_failed, _idle, _declared_lost])
def test_a_chat_that_its_replica_has_no_more_goes_on(
    monkeypatch: pytest.MonkeyPatch, befalls: Callable[..., Awaitable[None]]
) -> None:
    """Guards its words and the numbers of its events: they are those of a chat that nothing
    befell, whether it listens or gives when that happens."""

    async def work(*, disturbed: bool) -> list[Any]:
        owner = make_owner("alone", None, None, idle_s=IDLE_S)
        replica: Any = _Replica(owner)
        sessions = PinnedSessions(replica, None)
        await sessions.open(OPTIONS, "chat")
        go_on = _chat(sessions)
        first = await go_on(0, 3)
        if disturbed:
            await befalls(owner, monkeypatch)
            # No more is to be told: it comes to where it was.
            async with asyncio.timeout(5):
                now = 0
                while now < len(first):
                    assert await sessions.events("chat", len(first), 0.01) == []
                    now = (await sessions.view("chat")).events
            await befalls(owner, monkeypatch)
        async with asyncio.timeout(10):
            said = await go_on(3, 6)
        await sessions.close("chat")
        assert not owner._sessions
        assert not owner._taken_in
        return said

    assert asyncio.run(work(disturbed=True)) == asyncio.run(work(disturbed=False))


def test_a_chat_that_is_lost_each_time_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards all others of a replica against a chat whose input fails its engine: it is given
    again, and so fails it, a few times and no more."""

    async def work() -> None:
        owner = make_owner("alone", None, None)
        replica: Any = _Replica(owner)
        sessions = PinnedSessions(replica, None)
        await sessions.open(OPTIONS, "chat")
        monkeypatch.setattr(owner._loop.engine, "step", _raise)
        monkeypatch.setattr(pinned, "_LAST_PAUSE_S", 0.01)
        await sessions.give("chat", [Frame(FRAMES[0])])
        async with asyncio.timeout(20):
            while True:
                assert await sessions.events("chat", 0, 0.05) == []

    with pytest.raises(SessionError, match=f"lost the session {MOST_BEGINNINGS} times"):
        asyncio.run(work())
