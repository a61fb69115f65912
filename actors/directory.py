"""The session directory: which replica owns which session, and what follows when one is lost.

It keeps nothing that is not in the state store, but for the replicas' last reports: those come
again within a second. So it may die at any moment, and its successor goes on.

It assigns sessions while its cluster holds the store (``actors.claim``), and waits for that else.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from actors.claim import LOOK_S, StoreClaim
from actors.held import DirectoryError as DirectoryError
from actors.held import HeldStore
from actors.owners import PATIENCE_S, SILENT_S, Owners
from actors.owners import Reply as Reply
from actors.placement import Load
from actors.statestore import SESSION_ID, Manifest, session_of
from longreel.errors import StorageError

_log = logging.getLogger("longreel.directory")

_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")


def _to_its_end(
    call: Callable[_Given, Coroutine[Any, Any, _Result]],
) -> Callable[_Given, Coroutine[Any, Any, _Result]]:
    """A call that is done to its end when its caller leaves: what it has begun to write goes on in
    a thread, and nobody else may come in between."""

    @wraps(call)
    async def whole(*args: _Given.args, **others: _Given.kwargs) -> _Result:
        return await asyncio.shield(call(*args, **others))

    return whole


@dataclass
class _Entry:
    """A session.

    Attributes:
        manifest: as it was last known to be in the store.
        in_doubt: whether another may be there by now, of which nobody was told: a write, or the
            look at the claim after it, has failed. Until it is written anew nobody may go on from
            this one, since a directory that began anew would go on from that.
    """

    manifest: Manifest
    in_doubt: bool = False
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @contextmanager
    def changing(self) -> Iterator[None]:
        """While what the store has of it is changed."""
        try:
            yield
        except BaseException:
            self.in_doubt = True
            raise
        self.in_doubt = False


class Directory:
    """Assigns sessions to owners; one of it in a cluster, as a named actor.

    An owner is one life of one replica. A session stays with its owner until that is lost; then
    the owner is fenced in the store first, and only then is the session assigned anew.

    Where the store fails, calls that need it raise ``StorageError``.

    Args:
        store: uri of the state store.
        cluster, pid: see ``StoreClaim``.
    """

    def __init__(self, store: str, cluster: str = "alone", pid: int | None = None) -> None:
        self._sessions: dict[str, _Entry] = {}
        #: Owners in clusters that held the store before.
        self._foreign: set[str] = set()
        self._owners = Owners()
        self._fenced: set[str] = set()
        self._fencing = asyncio.Lock()
        self.moves = self.fences = 0
        claim = StoreClaim(store, cluster, pid)
        self._store = HeldStore(store, claim, self._read, self._dropped)

    # The claim on the store

    async def tend(self, wanted: Callable[[], bool] = lambda: True) -> None:
        """Hold the store for this cluster, or wait until it is free, until cancelled.

        Args:
            wanted: see ``HeldStore.tend``.
        """
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._store.tend(wanted))
            tasks.create_task(self._settle())

    async def _settle(self) -> None:
        """Fence whom clusters before this one left behind, and forget what they closed."""
        while True:
            try:
                for owner in list(self._foreign):
                    await self._lost(owner)
                await asyncio.to_thread(self._store.tidy)
            except Exception as failure:
                _log.warning("what another cluster left is not looked after: %s", failure)
            await asyncio.sleep(LOOK_S)

    async def release(self) -> None:
        """Leave the store to others at once; for whoever ends this actor."""
        await asyncio.to_thread(self._store.release)

    def _read(self, found: list[Manifest], term: int) -> None:
        self._foreign = {m.owner for m in found if m.owner is not None and m.term < term}
        self._sessions = {m.session: _Entry(m) for m in found}

    def _dropped(self) -> None:
        self._sessions, self._foreign = {}, set()
        # Whoever reports next is looked up in the store, where the next holder has fenced it.
        self._owners.forget_all()

    # What replicas say

    async def report(self, owner: str, replica: str, load: Load) -> Reply | None:
        """A replica is there, and how full it is; None where it was declared lost."""
        if owner in self._fenced:
            return None
        # After a restart of this actor the store knows better.
        if owner not in self._owners and await asyncio.to_thread(self._store.fenced, owner):
            self._fenced.add(owner)
            return None
        return self._owners.report(owner, replica, load)

    @_to_its_end
    async def kept(
        self, life: str, epoch: int, snapshot: str, counts: dict[str, int], *, in_memory: bool
    ) -> bool:
        """A session can be had from ``snapshot`` and what its owner logs from then on.

        Args:
            life: of the session; another under its id is not the caller's.
            in_memory: the owner still has it; else nobody has.

        Returns:
            False where the session is no longer the caller's.

        Raises:
            DirectoryError: another cluster holds the store; the snapshot may be in use there.
        """
        session, term = session_of(life), self._store.held()
        entry = self._sessions.get(session)
        if entry is None or entry.manifest.life != life:
            return False
        async with entry.lock:
            old = entry.manifest
            if not self._is_there(entry):
                self._under(term)
                return False
            if old.snapshot == snapshot:
                # Asked again, since this actor died before it could answer.
                await self._certain(entry, term)
                return True
            if old.epoch != epoch or old.owner is None:
                return False
            tail = (old.owner,) if in_memory else ()
            kept = replace(old, snapshot=snapshot, tail=tail, counts=counts)
            if not in_memory:
                kept = replace(kept, owner=None, replica=None)
            await self._write(entry, kept, term)
            if old.snapshot:
                await asyncio.to_thread(self._store.delete_snapshot, session, old.snapshot)
        await self._clean(old.tail, term)
        return True

    # What the gateway asks

    async def open(self, session: str, options: dict[str, Any], token: str) -> Manifest:
        """A new session, assigned.

        Args:
            token: of the caller; with the same one the call may be repeated.

        Raises:
            DirectoryError: the id cannot be one or is taken, there is no replica, or no room.
        """
        if not re.fullmatch(SESSION_ID, session):
            raise DirectoryError(
                "invalid_value",
                "a session id has 1 to 64 letters (a-z), digits, '-' and '_', and begins with a "
                "letter or digit",
            )
        self._store.held()
        options = {**options, "token": token}
        entry = self._sessions.get(session)
        if entry is None:
            made = Manifest(session, time.time(), options)
            entry = self._sessions.setdefault(session, _Entry(made))
        if entry.manifest.options.get("token") != token:
            raise DirectoryError("invalid_value", f"there is a session {session!r} already")
        try:
            if not entry.manifest.epoch:
                await self._owners.room(session)
        except BaseException:
            if not entry.lock.locked():
                self._give_up(entry)
            raise
        return await self.locate(session)

    async def place(self) -> tuple[str, str]:
        """Owner and replica for a session that is kept nowhere.

        Raises:
            DirectoryError: there is no replica, or no room.
        """
        self._store.held()
        await self._owners.room(secrets.token_hex(8))
        return await self._owners.choose()

    @_to_its_end
    async def locate(self, session: str) -> Manifest:
        """The session's assignment, a new one where it has none that holds.

        Raises:
            DirectoryError: there is no such session, or no replica.
        """
        entry, term = self._entry(session), self._store.held()
        async with entry.lock:
            manifest = self._still(entry).manifest
            if manifest.owner is not None and not await self._lost(manifest.owner):
                return await self._certain(entry, term)
            try:
                assigned = manifest.assigned(*await self._owners.choose())
                assigned = await self._write(entry, assigned, term)
            except BaseException:
                self._give_up(entry)
                raise
            self.moves += manifest.owner is not None
            return assigned

    @_to_its_end
    async def lost(self, owner: str, reason: str) -> None:
        """The owner is gone or can be reached no more: its sessions go elsewhere."""
        await self._fence(owner, reason)

    @_to_its_end
    async def gone(self, replica: str) -> None:
        """Calls are routed to the replica no more; see ``lost``."""
        for name in self._owners.of(replica):
            if self._store.is_held:
                await self._fence(name, "its replica is gone")
            else:
                self._owners.forget(name)

    @_to_its_end
    async def forget(self, life: str) -> None:
        """Close a session: nothing of it is known or in the store any more.

        Args:
            life: of the session. Asked again, since this actor died before it could answer, it
                closes no other that has the id by then.

        Raises:
            DirectoryError: there is no such session, or another cluster holds the store.
        """
        session = session_of(life)
        entry, term = self._entry(session), self._store.held()
        if entry.manifest.life != life:
            raise _not_found(session)
        async with entry.lock:
            with self._still(entry).changing():
                await asyncio.to_thread(self._store.close_under, session, term)
            # Not before: until then nobody may open another under its id.
            self._sessions.pop(session, None)
        await self._clean(entry.manifest.tail, term)

    @_to_its_end
    async def manifest(self, session: str) -> Manifest:
        """As it stands, without assigning anything."""
        entry, term = self._entry(session), self._store.held()
        if not entry.manifest.epoch:
            raise _not_found(session)  # it is being opened
        if not entry.in_doubt:
            return entry.manifest
        async with entry.lock:
            return await self._certain(self._still(entry), term)

    async def manifests(self) -> list[Manifest]:
        """All sessions."""
        self._store.held()
        return [entry.manifest for entry in self._sessions.values()]

    async def figures(self) -> dict[str, Any]:
        """Numbers since this actor began: ``sessions`` by state (``live``, ``idle``, ``lost``) and
        those ``without_room``, ``owners`` that report, ``moves`` of sessions, those
        that replicas that were behind have sent elsewhere (``relieved``), and ``fences`` of owners;
        and whether the store is ``held``.
        """
        states = {"live": 0, "idle": 0, "lost": 0}
        for entry in self._sessions.values():
            owner = entry.manifest.owner
            states["idle" if owner is None else "lost" if owner in self._fenced else "live"] += 1
        return {
            "held": self._store.is_held,
            "sessions": states,
            "owners": len(self._owners.told()),
            "moves": self.moves,
            "fences": self.fences,
            "relieved": self._owners.relieved,
            "without_room": self._owners.without_room(),
        }

    async def owners(self) -> dict[str, tuple[str, Load, float]]:
        """Owners that report, each with its replica, its last report, and the report's age in
        seconds.
        """
        return self._owners.told()

    def _entry(self, session: str) -> _Entry:
        self._store.held()
        try:
            return self._sessions[session]
        except KeyError:
            raise _not_found(session) from None

    def _under(self, term: int) -> None:
        if self._store.held() != term:
            raise DirectoryError("unavailable", "the state store was another's meanwhile")

    def _is_there(self, entry: _Entry) -> bool:
        return self._sessions.get(entry.manifest.session) is entry

    def _give_up(self, entry: _Entry) -> None:
        """Its id is free again, if it was never opened."""
        if not entry.manifest.epoch and self._is_there(entry):
            del self._sessions[entry.manifest.session]

    def _still(self, entry: _Entry) -> _Entry:
        """The entry, if it was not closed while it was waited for."""
        self._store.held()
        if not self._is_there(entry):
            raise _not_found(entry.manifest.session)
        return entry

    async def _write(self, entry: _Entry, manifest: Manifest, term: int) -> Manifest:
        with entry.changing():
            entry.manifest = await asyncio.to_thread(self._store.write_under, manifest, term)
        return entry.manifest

    async def _certain(self, entry: _Entry, term: int) -> Manifest:
        """What the store is known to have, whatever a term before this one still writes."""
        if entry.in_doubt or entry.manifest.term != term:
            await self._write(entry, entry.manifest, term)
        return entry.manifest

    async def _lost(self, owner: str) -> bool:
        if owner in self._fenced:
            return True
        if owner in self._foreign:
            await self._fence(owner, "its cluster holds the store no more")
            return True
        if owner in self._owners:
            if not self._owners.silent(owner):
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
            await self._owners.next_report(deadline)
        await self._fence(owner, "it did not report")
        return True

    async def _fence(self, owner: str, reason: str) -> None:
        async with self._fencing:
            if owner in self._fenced:
                return
            await asyncio.to_thread(self._store.fence, owner, reason, self._store.held())
            self._fenced.add(owner)
            self._foreign.discard(owner)
            self.fences += 1
            self._owners.forget(owner)

    async def _clean(self, owners: tuple[str, ...], term: int) -> None:
        """Delete the logs of fenced owners that no session needs any more.

        Args:
            term: under which that was found; in another, who needs what is not known.
        """
        needed = {name for entry in self._sessions.values() for name in entry.manifest.tail}
        # After the sessions were read: another thread drops them, and before them the term.
        if self._store.term != term:
            return
        try:
            for owner in owners:
                if owner in self._fenced and owner not in needed:
                    await asyncio.to_thread(self._store.delete_owner, owner)
        except StorageError as failure:
            # What was asked is done all the same.
            _log.warning("something is left of a lost owner's log: %s", failure)


def _not_found(session: str) -> DirectoryError:
    return DirectoryError("session_not_found", f"there is no session {session!r}")
