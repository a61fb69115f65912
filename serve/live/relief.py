"""How a replica that is behind gets rid of a session: the one that brings most goes elsewhere."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping

from serve.live.pace import Pace
from serve.live.session import LiveSession

_log = logging.getLogger("longreel.sessions")

#: How long a session that shall go elsewhere may need for what it was given, in seconds.
_DRAIN_S = 10.0


class Relief:
    """Lets one session after the other go, each when the one before is gone.

    Args:
        there: the sessions that the replica has at present, by id.
        offload: takes a session out of the replica's memory, unless it has come to wait; whether
            it did.

    Attributes:
        relieved: sessions that have gone.
    """

    def __init__(
        self,
        pace: Pace,
        there: Callable[[], Mapping[str, LiveSession]],
        offload: Callable[[LiveSession], Awaitable[bool]],
    ) -> None:
        self._pace, self._there, self._offload = pace, there, offload
        self.relieved = 0
        self._going: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Let one more go, unless one is on its way."""
        if self._going is None or self._going.done():
            self._going = asyncio.create_task(self.relieve())

    async def relieve(self) -> None:
        """Let the session that brings most go where there is room, once it has been told all that
        it was given.
        """
        movable = [
            s
            for s in self._there().values()
            if s.options.kind == "live" and s.options.durable and not s.leaving
        ]
        session = max(movable, key=lambda s: self._pace.rate(s.id), default=None)
        if session is None:
            return
        session.leave()
        try:
            deadline = time.monotonic() + _DRAIN_S
            while session.transcript.waiting and time.monotonic() < deadline:
                await asyncio.sleep(0.02)
            # Nothing comes in between: it is locked before anybody else has a turn.
            session.leave(False)
            if await self._offload(session):
                self.relieved += 1
        except Exception as failure:
            _log.warning("session %s stays on a replica that is behind: %s", session.id, failure)
        finally:
            if self._there().get(session.id) is session:
                session.leave(False)
