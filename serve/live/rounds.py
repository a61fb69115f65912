"""What an owner does every second; where one thing fails, all others have their turn."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection

from serve.live.session import LiveSession

_log = logging.getLogger("longreel.sessions")

#: How often an owner reports and looks after its sessions, in seconds.
REPORT_S = 1.0


async def repeat(what: Callable[[], Awaitable[None]], failed: str) -> None:
    """Do ``what`` every ``REPORT_S`` until cancelled.

    Args:
        failed: what is logged where it fails, once until it is done again.
    """
    failing = False
    while True:
        try:
            await what()
            failing = False
        except Exception as failure:
            # The directory or the store is away for a while: what is durable stays so.
            if not failing:
                _log.warning("%s: %s", failed, failure)
            failing = True
        await asyncio.sleep(REPORT_S)


class Rounds:
    """Looks after sessions, one after the other.

    Args:
        care: does for a session what is due; whether anything was.
    """

    def __init__(self, care: Callable[[LiveSession], Awaitable[bool]]) -> None:
        self._care = care
        #: Lives of those for which what was due has failed.
        self._failing: set[str] = set()

    async def go(self, sessions: Collection[LiveSession]) -> None:
        """Look after each; a failure is logged once until it is done."""
        for session in sessions:
            try:
                if await self._care(session):
                    self._failing.discard(session.life)
            except Exception as failure:
                if session.life not in self._failing:
                    _log.warning("not looked after: %s", failure, extra={"session": session.id})
                self._failing.add(session.life)
        self._failing &= {session.life for session in sessions}
