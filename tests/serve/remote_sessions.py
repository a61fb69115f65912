"""Sessions in memory that several processes reach, as they reach those on replicas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray

from serve.calls import Sessions
from serve.live.items import (
    Frame,
    Input,
    Kept,
    Receipt,
    SessionError,
    SessionEvent,
    SessionOptions,
    SessionView,
)
from tests.serve.memory_sessions import MemorySessions
from tests.videos import read_number


class Holder:
    """Actor with the sessions; it keeps what they were given."""

    def __init__(self) -> None:
        self._sessions = MemorySessions()
        self._given: list[tuple[float, int, Receipt]] = []

    async def call(self, method: str, *arguments: Any) -> Any:
        """What the method gives, or the ``SessionError`` that it raises, as a value."""
        try:
            result = await getattr(self._sessions, method)(*arguments)
        except SessionError as failure:
            return failure
        if method == "give":
            for each, receipt in zip(arguments[1], result, strict=True):
                if isinstance(each, Frame):
                    told = each.time_s or 0.0, read_number(each.pixels), receipt
                    self._given.append(told)
        return result

    async def given(self) -> list[tuple[float, int, Receipt]]:
        """Times, picture numbers and receipts of all frames."""
        return self._given


class RemoteSessions:
    """``Sessions`` over a ``Holder`` by its name."""

    def __init__(self, name: str) -> None:
        self._holder = ray.get_actor(name, "tests")

    async def _call(self, method: str, *arguments: Any) -> Any:
        result = await self._holder.call.remote(method, *arguments)
        if isinstance(result, SessionError):
            raise result
        return result

    async def open(self, options: SessionOptions, session: str | None = None) -> SessionView:
        return await self._call("open", options, session)

    async def give(
        self, session: str, inputs: Sequence[Input], seq: int | None = None
    ) -> list[Receipt]:
        return await self._call("give", session, inputs, seq)

    async def cancel(self, session: str, response: str | None = None) -> bool:
        return await self._call("cancel", session, response)

    async def events(
        self, session: str, after: int = 0, wait_s: float = 10.0
    ) -> list[SessionEvent]:
        return await self._call("events", session, after, wait_s)

    async def kept(self, session: str, frame: int) -> Kept:
        return await self._call("kept", session, frame)

    async def view(self, session: str) -> SessionView:
        return await self._call("view", session)

    async def owner(self, session: str) -> str | None:
        return await self._call("owner", session)

    async def list(self) -> list[SessionView]:
        return await self._call("list")

    async def close(self, session: str) -> None:
        await self._call("close", session)


def _keeps_the_contract(sessions: RemoteSessions) -> Sessions:
    """For mypy."""
    return sessions
