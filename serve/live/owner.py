"""All sessions of one replica: taken in when they are called for, kept in the store, let go."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from actors.directory import DirectoryError
from actors.placement import Load
from actors.sessionlog import FencedError, SessionLog
from actors.statestore import Manifest, Record, StateStore, effective
from longreel.errors import StorageError
from mod.engine.snapshot import SnapshotError
from serve.engine_loop import EngineLoop, ModelError
from serve.live.items import (
    CLOSED_S,
    Input,
    Receipt,
    Refusal,
    SessionError,
    SessionEvent,
    SessionOptions,
)
from serve.live.records import Replayed, replayed
from serve.live.session import LiveSession, MovedError

_log = logging.getLogger("ray.serve")
_Result = TypeVar("_Result")

#: Frames after which a session is kept anew; of one that forgets nothing, as many as half of
#: what it has, so that all its snapshots together grow with its length and not with its square.
KEEP_FRAMES = 64
#: How often an owner reports and looks after its sessions, in seconds.
REPORT_S = 1.0
#: How long what a lost owner logged is kept in memory for the next of its sessions.
_TAIL_S = 60.0


class DirectoryCalls(Protocol):
    """The directory, as awaited calls; see ``actors.directory.Directory``."""

    async def report(self, owner: str, replica: str, load: Load) -> bool: ...

    async def manifest(self, session: str) -> Manifest: ...

    async def kept(
        self, session: str, epoch: int, snapshot: str, counts: dict[str, int], *, in_memory: bool
    ) -> bool: ...


@dataclass(frozen=True)
class OwnerSettings:
    """What an owner needs to know.

    Attributes:
        replica: by which name calls are routed here.
        fps, side: of the checkpoint.
        idle_s: after which a session that nobody uses is kept in the store alone.
        memory: bytes of caches that are free and there are in all.
    """

    replica: str
    fps: float
    side: int
    decode: Callable[[Sequence[int]], str]
    memory: Callable[[], tuple[int, int]]
    idle_s: float = 120.0


class Owner:
    """The sessions of a replica; all methods run on one event loop.

    Args:
        store, directory: None where sessions are not kept.
    """

    def __init__(
        self,
        loop: EngineLoop,
        settings: OwnerSettings,
        store: StateStore | None,
        directory: DirectoryCalls | None,
    ) -> None:
        self._loop, self._settings = loop, settings
        self._store, self._directory = store, directory
        self._sessions: dict[str, LiveSession] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._tails: dict[str, tuple[float, dict[str, list[Record]]]] = {}
        self._tail_lock = asyncio.Lock()
        self._taken_in: set[str] = set()
        #: For whoever asks for the last events of what was just closed.
        self._closed: dict[str, LiveSession] = {}
        self._begin()

    def _begin(self) -> None:
        self.name = f"{self._settings.replica}-{secrets.token_hex(4)}"
        self._log = SessionLog(self._store, self.name) if self._store else None

    async def run(self) -> None:
        """Report and look after sessions until cancelled."""
        while True:
            try:
                if self._directory and not await self._report():
                    await self._begin_anew()
                await self._look_after()
            except asyncio.CancelledError:
                raise
            except Exception as failure:
                # The directory or the store is away for a while: what is durable stays so.
                _log.warning("sessions are not looked after: %s", failure)
            await asyncio.sleep(REPORT_S)

    # Calls

    async def give(
        self, manifest: Manifest, inputs: Sequence[Input], seq: int | None, token: str | None
    ) -> list[Receipt] | Refusal:
        """See ``LiveSession.give``."""
        return await self._with(manifest, lambda session: session.give(inputs, seq, token))

    async def cancel(self, manifest: Manifest, response: str | None) -> bool | Refusal:
        """See ``LiveSession.cancel``."""
        return await self._with(manifest, lambda session: session.cancel(response))

    async def events(
        self, manifest: Manifest, after: int, wait_s: float
    ) -> list[SessionEvent] | Refusal:
        """See ``LiveSession.events``; the last ones of a session that was just closed too."""
        if (closed := self._closed.get(manifest.session)) and closed.epoch == manifest.epoch:
            return closed.transcript.after(after)
        return await self._with(manifest, lambda session: session.events(after, wait_s))

    async def counts(self, manifest: Manifest) -> dict[str, Any] | Refusal:
        """Inputs and events of a session so far."""

        async def count(session: LiveSession) -> dict[str, Any]:
            return session.counts()

        return await self._with(manifest, count)

    async def drop(self, session: str) -> None:
        """End a session that is closed."""
        await asyncio.shield(self._drop(session))

    async def _drop(self, session: str) -> None:
        async with self._lock(session):
            if have := self._sessions.pop(session, None):
                have.used = time.monotonic()
                self._closed[session] = have
                await have.end(told=True)
                if self._log is not None:
                    self._log.forget(session, 2**62)
        self._locks.pop(session, None)

    def load(self) -> Load:
        """How full this replica is."""
        free, capacity = self._settings.memory()
        there = list(self._sessions.values())
        frames = sum(s.transcript.waiting_frames for s in there)
        waiting = sum(s.transcript.waiting for s in there)
        now = time.monotonic()
        live = [s.transcript.waiting_since for s in there if s.options.kind == "live"]
        lag = max((now - since for since in live if since is not None), default=0.0)
        return Load(free, capacity, len(there), frames, waiting - frames, lag)

    async def _with(
        self, manifest: Manifest, call: Callable[[LiveSession], Awaitable[_Result]]
    ) -> _Result | Refusal:
        # Ray Serve cancels the call of a client that leaves: what is half done is done to its end.
        return await asyncio.shield(self._whole(manifest, call))

    async def _whole(
        self, manifest: Manifest, call: Callable[[LiveSession], Awaitable[_Result]]
    ) -> _Result | Refusal:
        try:
            found = await self._session(manifest)
            if isinstance(found, Refusal):
                return found
            return await call(found)
        except MovedError:
            return Refusal("stale")
        except (SessionError, DirectoryError) as error:
            # The directory's: such as that the session was closed through another gateway.
            return Refusal(error.code, error.message)
        except FencedError:
            await self._begin_anew()
            return Refusal("stale")
        except SnapshotError as error:
            return Refusal("unavailable", f"the session cannot go on here: {error}")
        except (StorageError, ModelError) as error:
            return Refusal("unavailable", str(error))

    # Taking in

    def _lock(self, session: str) -> asyncio.Lock:
        return self._locks.setdefault(session, asyncio.Lock())

    async def _session(self, manifest: Manifest) -> LiveSession | Refusal:
        have = self._sessions.get(manifest.session)
        if have is not None and have.epoch == manifest.epoch and have.broken is None:
            return have
        if manifest.owner != self.name:
            return Refusal("stale")
        async with self._lock(manifest.session):
            return await self._take_in(manifest)

    async def _take_in(self, manifest: Manifest) -> LiveSession | Refusal:
        options = SessionOptions(**_known(manifest.options))
        if options.durable:
            # The caller's may be old; what others did to the session meanwhile stands here.
            if self._directory is None or self._store is None:
                return Refusal("unavailable", "sessions are not kept by this service")
            now = await self._directory.manifest(manifest.session)
            if now.owner != self.name or now.epoch != manifest.epoch:
                return Refusal("stale")
            manifest = now
        have = self._sessions.get(manifest.session)
        if have is not None:
            if have.epoch == manifest.epoch and have.broken is None:
                return have
            del self._sessions[manifest.session]
            await have.end(told=False)
        snapshot: bytes | None = None
        records: list[Record] = []
        if options.durable:
            snapshot, records = await self._past(manifest)
        session = LiveSession(
            self._loop,
            manifest,
            options,
            self._settings.decode,
            fps=self._settings.fps,
            side=self._settings.side,
            log=self._log if options.durable else None,
        )

        def past(after: int) -> Replayed:
            return replayed(effective(records), after)

        await session.begin(snapshot, past)
        self._sessions[manifest.session] = session
        self._taken_in.add(manifest.session)
        return session

    async def _past(self, manifest: Manifest) -> tuple[bytes | None, list[Record]]:
        assert self._store is not None
        snapshot = None
        if manifest.snapshot is not None:
            snapshot = await asyncio.to_thread(
                self._store.read_snapshot, manifest.session, manifest.snapshot
            )
        records: list[Record] = []
        for owner in manifest.tail:
            if owner != self.name or manifest.session in self._taken_in:
                tail = await self._tail(owner)
                records += tail.get(manifest.session, [])
        return snapshot, records

    async def _tail(self, owner: str) -> dict[str, list[Record]]:
        """What an owner logged, by session; of a lost one it is read once for all of them."""
        assert self._store is not None
        async with self._tail_lock:
            now = time.monotonic()
            self._tails = {n: t for n, t in self._tails.items() if now - t[0] < _TAIL_S}
            if owner in self._tails and owner != self.name:
                return self._tails[owner][1]
            store, found = self._store, dict[str, list[Record]]()

            def read() -> None:
                for record in store.records(owner):
                    found.setdefault(record.session, []).append(record)

            await asyncio.to_thread(read)
            self._tails[owner] = time.monotonic(), found
            return found

    # Letting go

    async def _report(self) -> bool:
        assert self._directory is not None
        return await self._directory.report(self.name, self._settings.replica, self.load())

    async def _begin_anew(self) -> None:
        """This owner was declared lost: what it has is others', and it comes as a new one."""
        sessions, self._sessions = self._sessions, {}
        if self._log is not None:
            self._log.close()
        self._begin()
        self._taken_in.clear()
        for session in sessions.values():
            await session.end(told=False)

    async def _look_after(self) -> None:
        now = time.monotonic()
        self._closed = {n: s for n, s in self._closed.items() if now - s.used < CLOSED_S}
        for session in list(self._sessions.values()):
            idle = not session.readers and now - session.used > self._settings.idle_s
            if session.options.durable:
                if idle:
                    await self._offload(session)
                elif _due(session):
                    await self._keep(session, in_memory=True)
            elif idle:
                await self.drop(session.id)

    async def _offload(self, session: LiveSession) -> None:
        # Nobody may take it in again while it is on its way out.
        async with self._lock(session.id):
            if self._sessions.get(session.id) is not session:
                return
            del self._sessions[session.id]
            try:
                if await self._keep(session, in_memory=False):
                    await session.end(told=False)
                elif not session.leaving:
                    self._sessions[session.id] = session
            except BaseException:
                # Who calls for it takes it in from the store.
                await session.end(told=False)
                raise

    async def _keep(self, session: LiveSession, *, in_memory: bool) -> bool:
        """Write a snapshot and let the directory know; whether that was done."""
        assert self._store is not None
        assert self._directory is not None
        taken = await session.snapshot(leaving=not in_memory)
        if taken is None:
            return False
        data, seq = taken
        counts = session.counts()
        name = f"snapshot-{session.epoch}-{seq}-{secrets.token_hex(3)}"
        await asyncio.to_thread(self._store.write_snapshot, session.id, name, data)
        if not await self._directory.kept(
            session.id, session.epoch, name, counts, in_memory=in_memory
        ):
            await asyncio.to_thread(self._store.delete_snapshot, session.id, name)
            return False
        session.snapshot_seq, session.snapshot_frames = seq, session.counters.frames
        if self._log is not None:
            self._log.forget(session.id, seq)
        return True


def _due(session: LiveSession) -> bool:
    """Whether a session has grown so much that it should be kept anew."""
    if session.transcript.waiting:
        return False
    if session.epoch > 1 and not session.snapshot_seq and session.counters.seq:
        # Taken over: what lost owners logged can go when this one needs it no more.
        return True
    new = session.counters.frames - session.snapshot_frames
    least = KEEP_FRAMES
    if session.options.memory != "window":
        least = max(least, session.snapshot_frames // 2)
    return new >= least


def _known(options: dict[str, Any]) -> dict[str, Any]:
    """The fields that are a session's own; a manifest has more."""
    return {k: v for k, v in options.items() if k in SessionOptions.__dataclass_fields__}
