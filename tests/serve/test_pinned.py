"""Calls on sessions whose first attempt is lost on the way: what the client is told of the next."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from ray.exceptions import ActorUnavailableError

from actors.statestore import Manifest
from serve import pinned
from serve.live.items import Question, Receipt
from serve.pinned import PinnedSessions
from serve.routable import ROUTABLE


@pytest.fixture(autouse=True)
def _there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ROUTABLE, "there", lambda: frozenset({"replica"}))


class _Directory:
    """Has one session."""

    @property
    def locate(self) -> _Directory:
        return self

    async def remote(self, session: str) -> Manifest:
        return Manifest(session, 0.0, {}, 1, "owner", "replica")


class _Silent:
    """Never answers a call that goes straight to it; Ray's own calls reach it."""

    def __init__(self) -> None:
        self.direct: list[bool] = []

    def options(self, *, _by_reference: bool, **_: Any) -> Any:
        outer = self

        class Handle:
            async def remote(self, _: Manifest, *__: Any) -> list[Receipt]:
                outer.direct.append(not _by_reference)
                if not _by_reference:
                    await asyncio.sleep(3600)
                return [Receipt(1, "accepted", response="resp-door-1")]

        return Handle()


class _Replica:
    """Takes an input in and loses the reply; it knows what comes again."""

    def __init__(self) -> None:
        self.calls: list[tuple[int | None, str | None]] = []

    def options(self, **_: Any) -> _Replica:
        return self

    async def remote(
        self, _: Manifest, inputs: list[Any], seq: int | None, token: str | None
    ) -> list[Receipt]:
        self.calls.append((seq, token))
        if len(self.calls) == 1:
            raise ActorUnavailableError("lost on the way", b"\0" * 16)
        assert self.calls[0] == (seq, token)
        return [Receipt(1, "accepted", response="resp-door-1", repeated=True)]


def _told(seq: int | None) -> Receipt:
    async def run() -> Receipt:
        replica: Any = _Replica()
        directory: Any = _Directory()
        (receipt,) = await PinnedSessions(replica, directory).give("door", [Question("?")], seq)
        assert len(replica.calls) == 2
        return receipt

    return asyncio.run(run())


def test_a_call_that_is_not_answered_is_made_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against clients that wait for ever on a connection whose other end is gone."""
    monkeypatch.setattr(pinned, "DIRECT_S", 0.1)
    replica: Any = _Silent()
    directory: Any = _Directory()

    async def run() -> list[Receipt]:
        return await PinnedSessions(replica, directory).give("door", [Question("?")], None)

    (receipt,) = asyncio.run(run())
    assert (receipt.seq, receipt.repeated) == (1, False)
    assert replica.direct == [True, False]


def test_an_input_without_a_number_is_not_called_repeated() -> None:
    """Guards clients that gave an input once against being told that they gave it before."""
    assert not _told(None).repeated


def test_an_input_with_a_number_is_called_repeated() -> None:
    """Guards clients that number inputs: whether the number was known is theirs to hear."""
    assert _told(1).repeated


def test_the_router_is_not_stopped_by_sessions_that_have_ended() -> None:
    """Guards calls of a process against another of its event loops that was closed."""
    _told(None)
    heard: list[str] = []
    ROUTABLE.when_gone(heard.append)
    ROUTABLE.set({"one", "other"})
    ROUTABLE.set({"other"})
    assert heard == ["one"]
    ROUTABLE.set(set())


class _Asleep(_Replica):
    """Is started by a call for any replica."""

    def __init__(self) -> None:
        super().__init__()
        self.woken = 0

    @property
    def session_owner(self) -> Any:
        outer = self

        class Handle:
            async def remote(self) -> tuple[str, str]:
                outer.woken += 1
                return "owner", "replica"

        return Handle()


def test_a_session_that_is_called_for_starts_the_first_replica(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Guards scaling to none: the directory's call alone would wait for a replica for ever."""
    monkeypatch.setattr(ROUTABLE, "there", frozenset)
    replica: Any = _Asleep()
    directory: Any = _Directory()

    async def run() -> None:
        await PinnedSessions(replica, directory).give("door", [Question("?")], None)

    asyncio.run(run())
    assert replica.woken == 1
