"""The owners that report to a session directory: how full each is, and where a new session goes."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass

from actors.held import DirectoryError
from actors.placement import Load, choose, has_room, overloaded, takes

#: How long a replica may be silent before its sessions are given to others.
SILENT_S = 15.0
#: How long a call waits for a replica to report, as after the directory itself began anew.
PATIENCE_S = 20.0
#: Cache memory that a session is reckoned to take until its replica reports.
SESSION_BYTES = 16 * 2**20
#: How long a new session waits for room, and how long it counts as waiting after that: whoever
#: was refused comes again.
ROOM_S, REFUSED_S = 5.0, 15.0
#: Between two sessions that leave a replica that is behind, in seconds: what the first one brought
#: is in its averages for so long.
RELIEF_S = 3.0


@dataclass(frozen=True)
class Reply:
    """What a replica hears when it reports.

    Attributes:
        waiting_sessions: new ones that found no room on any replica of late.
        relieve: one of its sessions shall go elsewhere.
    """

    waiting_sessions: int = 0
    relieve: bool = False


@dataclass
class _Owner:
    replica: str
    load: Load
    heard: float
    #: Sessions placed since the last report.
    placed: int = 0
    #: When it was last told to let a session go.
    told: float = 0.0


class Owners:
    """Those that were heard of; what is known of them is lost with the process.

    Attributes:
        relieved: sessions that they have sent elsewhere since this process began.
    """

    def __init__(self) -> None:
        self._known: dict[str, _Owner] = {}
        self._came = asyncio.Event()
        #: Until when each session counts that found no room.
        self._no_room: dict[str, float] = {}
        self.relieved = 0

    def __contains__(self, owner: str) -> bool:
        return owner in self._known

    def report(self, owner: str, replica: str, load: Load) -> Reply:
        """It is there, and so full."""
        now, before = time.monotonic(), self._known.get(owner)
        known = _Owner(replica, load, now, told=before.told if before else 0.0)
        self._known[owner] = known
        if before:
            self.relieved += load.relieved - before.load.relieved
        self._came.set()
        self._no_room = {name: until for name, until in self._no_room.items() if until > now}
        relieve = now - known.told > RELIEF_S and self._relief_for(owner, load)
        if relieve:
            known.told = now
        return Reply(len(self._no_room), relieve)

    def _relief_for(self, owner: str, load: Load) -> bool:
        there = self._there()
        return overloaded(load) and any(
            takes(other.load, load) for name, other in there.items() if name != owner
        )

    def silent(self, owner: str) -> bool:
        """Whether it reports no more, if it ever did."""
        return owner not in self._there()

    def of(self, replica: str) -> list[str]:
        """Those on a replica."""
        return [name for name, owner in self._known.items() if owner.replica == replica]

    def forget(self, owner: str) -> None:
        """It is gone."""
        self._known.pop(owner, None)
        self._came.set()

    def forget_all(self) -> None:
        """Nothing that was heard counts any more."""
        self._known = {}

    def told(self) -> dict[str, tuple[str, Load, float]]:
        """Of those that report, the replica, the last report, and the report's age in seconds."""
        now = time.monotonic()
        there = self._there().items()
        return {name: (o.replica, o.load, now - o.heard) for name, o in there}

    def without_room(self) -> int:
        """New sessions that found no room of late."""
        now = time.monotonic()
        return sum(until > now for until in self._no_room.values())

    async def choose(self) -> tuple[str, str]:
        """Owner and replica for a session.

        Raises:
            DirectoryError: there is no replica.
        """
        deadline = time.monotonic() + PATIENCE_S
        while True:
            now, there = time.monotonic(), self._there()
            placed = Counter({name: owner.placed for name, owner in there.items()})
            loads = {name: owner.load for name, owner in there.items()}
            name = choose(loads, placed, SESSION_BYTES)
            if name is not None:
                there[name].placed += 1
                return name, there[name].replica
            if now > deadline:
                raise DirectoryError("unavailable", "no replica of the model is up")
            await self.next_report(deadline)

    async def room(self, session: str) -> None:
        """Wait until some replica has room for a new session; those that are known stay anyway.

        Raises:
            DirectoryError: none has.
        """
        deadline = time.monotonic() + ROOM_S
        while there := self._there():
            if any(has_room(o.load, o.placed, SESSION_BYTES) for o in there.values()):
                self._no_room.pop(session, None)
                return
            self._no_room[session] = time.monotonic() + REFUSED_S
            if time.monotonic() > deadline:
                raise DirectoryError("overloaded", "all replicas have as much as they can do")
            await self.next_report(deadline)

    async def next_report(self, deadline: float) -> None:
        """Wait for one, a second at most."""
        self._came.clear()
        left = max(0.0, deadline - time.monotonic())
        try:
            await asyncio.wait_for(self._came.wait(), min(1.0, left) + 0.01)
        except TimeoutError:
            return

    def _there(self) -> dict[str, _Owner]:
        now = time.monotonic()
        return {name: o for name, o in self._known.items() if now - o.heard < SILENT_S}
