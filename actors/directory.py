"""The session directory: which replica owns which session, and what follows when one is lost.

It keeps nothing that is not in the state store, but for the replicas' last reports: those come
again within a second. So it may die at any moment, and its successor goes on.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from actors.placement import Load, choose
from actors.statestore import Manifest, StateStore

#: How long a replica may be silent before its sessions are given to others.
SILENT_S = 15.0
#: How long a call waits for a replica to report, as after the directory itself began anew.
PATIENCE_S = 20.0
#: Cache memory that a session is reckoned to take until its replica reports.
SESSION_BYTES = 16 * 2**20
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class DirectoryError(Exception):
    """``code`` as in the HTTP API: ``session_not_found``, ``invalid_value``, ``unavailable``."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code, self.message = code, message


@dataclass
class _Owner:
    replica: str
    load: Load
    heard: float
    #: Sessions placed since the last report.
    placed: int = 0


@dataclass
class _Entry:
    manifest: Manifest
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Directory:
    """Assigns sessions to owners; one of it in a cluster, as a named actor.

    An owner is one life of one replica. A session stays with its owner until that is lost; then
    the owner is fenced in the store first, and only then is the session assigned anew.

    Args:
        store: uri of the state store.
    """

    def __init__(self, store: str) -> None:
        self._store = StateStore(store)
        self._sessions = {m.session: _Entry(m) for m in self._store.manifests()}
        self._owners: dict[str, _Owner] = {}
        self._fenced: set[str] = set()
        self._fencing = asyncio.Lock()
        self._came = asyncio.Event()
        self.moves = 0

    # What replicas say

    async def report(self, owner: str, replica: str, load: Load) -> bool:
        """A replica is there, and how full it is; False where it was declared lost."""
        if owner in self._fenced:
            return False
        # After a restart of this actor the store knows better.
        if owner not in self._owners and await asyncio.to_thread(self._store.fenced, owner):
            self._fenced.add(owner)
            return False
        self._owners[owner] = _Owner(replica, load, time.monotonic())
        self._came.set()
        return True

    async def kept(
        self, session: str, epoch: int, snapshot: str, counts: dict[str, int], *, in_memory: bool
    ) -> bool:
        """The session can be had from ``snapshot`` and what its owner logs from then on.

        Args:
            in_memory: the owner still has it; else nobody has.

        Returns:
            False where the session is no longer the caller's.
        """
        entry = self._sessions.get(session)
        if entry is None:
            return False
        async with entry.lock:
            old = entry.manifest
            if old.epoch != epoch or old.owner is None or session not in self._sessions:
                return False
            tail = (old.owner,) if in_memory else ()
            kept = replace(old, snapshot=snapshot, tail=tail, counts=counts)
            if not in_memory:
                kept = replace(kept, owner=None, replica=None)
            await asyncio.to_thread(self._store.write_manifest, kept)
            entry.manifest = kept
            if old.snapshot and old.snapshot != snapshot:
                await asyncio.to_thread(self._store.delete_snapshot, session, old.snapshot)
        await self._clean(old.tail)
        return True

    # What the gateway asks

    async def open(self, session: str, options: dict[str, Any], token: str) -> Manifest:
        """A new session, assigned.

        Args:
            token: of the caller; with the same one the call may be repeated.

        Raises:
            DirectoryError: the id cannot be one or is taken, or there is no replica.
        """
        if not _ID.fullmatch(session):
            raise DirectoryError(
                "invalid_value", "a session id has 1 to 64 letters, digits, '-' and '_'"
            )
        options = {**options, "token": token}
        entry = self._sessions.get(session)
        if entry is None:
            made = Manifest(session, time.time(), options)
            entry = self._sessions.setdefault(session, _Entry(made))
        if entry.manifest.options.get("token") != token:
            raise DirectoryError("invalid_value", f"there is a session {session!r} already")
        try:
            return await self.locate(session)
        except DirectoryError:
            if not entry.manifest.epoch:
                self._sessions.pop(session, None)
            raise

    async def place(self) -> tuple[str, str]:
        """Owner and replica for a session that is kept nowhere."""
        owner = await self._choose()
        return owner, self._owners[owner].replica

    async def locate(self, session: str) -> Manifest:
        """The session's assignment, a new one where it has none that holds.

        Raises:
            DirectoryError: there is no such session, or no replica.
        """
        entry = self._entry(session)
        async with entry.lock:
            manifest = entry.manifest
            if manifest.owner is not None and not await self._lost(manifest.owner):
                return manifest
            owner = await self._choose()
            assigned = manifest.assigned(owner, self._owners[owner].replica)
            await asyncio.to_thread(self._store.write_manifest, assigned)
            self.moves += manifest.owner is not None
            entry.manifest = assigned
            return assigned

    async def lost(self, owner: str, reason: str) -> None:
        """The owner is gone or can be reached no more: its sessions go elsewhere."""
        await self._fence(owner, reason)

    async def gone(self, replica: str) -> None:
        """Calls are routed to the replica no more; see ``lost``."""
        for name in [n for n, owner in self._owners.items() if owner.replica == replica]:
            await self._fence(name, "its replica is gone")

    async def close(self, session: str) -> None:
        """Forget a session and all that the store has of it."""
        entry = self._entry(session)
        async with entry.lock:
            self._sessions.pop(session, None)
            await asyncio.to_thread(self._store.delete_session, session)
        await self._clean(entry.manifest.tail)

    async def manifest(self, session: str) -> Manifest:
        """As it stands, without assigning anything."""
        return self._entry(session).manifest

    async def manifests(self) -> list[Manifest]:
        """All sessions."""
        return [entry.manifest for entry in self._sessions.values()]

    def _entry(self, session: str) -> _Entry:
        try:
            return self._sessions[session]
        except KeyError:
            raise DirectoryError("session_not_found", f"there is no session {session!r}") from None

    async def _lost(self, owner: str) -> bool:
        if owner in self._fenced:
            return True
        known = self._owners.get(owner)
        if known is not None:
            if time.monotonic() - known.heard < SILENT_S:
                return False
            await self._fence(owner, f"silent for {SILENT_S:.0f} s")
            return True
        # This actor began anew: the owner has until then to report.
        deadline = time.monotonic() + PATIENCE_S / 2
        while time.monotonic() < deadline:
            if owner in self._owners:
                return False
            if owner in self._fenced:
                return True
            await self._next_report(deadline)
        await self._fence(owner, "it did not report")
        return True

    async def _fence(self, owner: str, reason: str) -> None:
        async with self._fencing:
            if owner in self._fenced:
                return
            await asyncio.to_thread(self._store.fence, owner, reason)
            self._fenced.add(owner)
            self._owners.pop(owner, None)
        self._came.set()

    async def _choose(self) -> str:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            now = time.monotonic()
            there = {n: o for n, o in self._owners.items() if now - o.heard < SILENT_S}
            placed = Counter({name: owner.placed for name, owner in there.items()})
            loads = {name: owner.load for name, owner in there.items()}
            owner = choose(loads, placed, SESSION_BYTES)
            if owner is not None:
                there[owner].placed += 1
                return owner
            if now > deadline:
                raise DirectoryError("unavailable", "no replica of the model is up")
            await self._next_report(deadline)

    async def _next_report(self, deadline: float) -> None:
        self._came.clear()
        left = max(0.0, deadline - time.monotonic())
        try:
            await asyncio.wait_for(self._came.wait(), min(1.0, left) + 0.01)
        except TimeoutError:
            return

    async def _clean(self, owners: tuple[str, ...]) -> None:
        """Delete the logs of fenced owners that no session needs any more."""
        needed = {name for entry in self._sessions.values() for name in entry.manifest.tail}
        for owner in owners:
            if owner in self._fenced and owner not in needed:
                await asyncio.to_thread(self._store.delete_owner, owner)
