"""Calls on sessions whose first attempt is lost on the way: what the client is told of the next."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from ray.exceptions import ActorUnavailableError

from actors.statestore import Manifest
from serve import pinned
from serve.live.items import CLOSED_S, Question, Receipt, SessionError, SessionOptions
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


class _Answering:
    """A replica and a directory that answer each call by its name, and note it."""

    def __init__(self, **answers: Any) -> None:
        self._answers, self.called = answers, list[tuple[str, tuple[Any, ...]]]()

    def options(self, *, method_name: str, **_: Any) -> Any:
        return getattr(self, method_name)

    def __getattr__(self, method: str) -> Any:
        outer = self

        class Handle:
            async def remote(self, *args: Any) -> Any:
                outer.called.append((method, args))
                return outer._answers.get(method)

        return Handle()


def _closing(manifest: Manifest) -> tuple[PinnedSessions, Any]:
    begun = {"seq": 0, "frames": 0, "waiting_frames": 0, "events": 0, "replaying": False}
    there: Any = _Answering(
        session_counts=begun,
        session_drop={**begun, "seq": 3, "frames": 2, "events": 7},
        session_events=[],
    )
    directory: Any = _Answering(manifest=manifest, open=manifest, locate=manifest)
    return PinnedSessions(there, directory), there


def test_a_closed_session_shows_what_it_came_to() -> None:
    """Guards who comes back after a session's last events: to one that shows none at all, a
    connection is refused at once."""

    async def run() -> None:
        sessions, _ = _closing(Manifest("door", 0.0, {}, 1, "owner", "replica"))
        await sessions.open(SessionOptions(), "door")
        await sessions.close("door")
        view = await sessions.view("door")
        assert (view.state, view.seq, view.frames, view.events) == ("closed", 3, 2, 7)

    asyncio.run(run())


def test_a_session_that_had_moved_is_closed_where_it_is() -> None:
    """Guards the memory of the replica that has it against a session that is closed: the caller
    may know no other than the replica before."""

    async def run() -> None:
        sessions, there = _closing(Manifest("door", 0.0, {}, 2, "new", "elsewhere"))
        sessions._known["door"] = Manifest("door", 0.0, {}, 1, "owner", "replica")
        await sessions.close("door")
        handles = [replica for replica, method, _ in sessions._handles if method == "session_drop"]
        assert handles == ["elsewhere"]
        assert [method for method, _ in there.called] == ["session_drop"]

    asyncio.run(run())


def test_a_name_that_is_closed_twice_is_closed_for_its_whole_time() -> None:
    """Guards readers of the second session of a name: the time of the first ends in theirs."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        loop.time = lambda: now  # type: ignore[method-assign]
        sessions, _ = _closing(Manifest("door", 0.0, {}, 1, "owner", "replica"))
        for _ in range(2):
            await sessions.open(SessionOptions(), "door")
            await sessions.close("door")
            now += 0.6 * CLOSED_S
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert (await sessions.view("door")).state == "closed"
        with pytest.raises(SessionError, match="is closed"):
            await sessions.events("door")
        now += 0.6 * CLOSED_S
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert (await sessions.view("door")).state == "live"

    asyncio.run(run())
