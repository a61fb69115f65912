"""All sessions of one replica: taken in when they are called for, kept in the store, let go."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from actors.directory import DirectoryError
from actors.placement import Load
from actors.sessionlog import FencedError, SessionLog
from actors.statestore import Manifest, Record, StateStore, effective, session_of
from longreel.errors import StorageError
from mod.engine.snapshot import SnapshotError
from serve.engine_loop import EngineLoop, ModelError
from serve.live.directory import DirectoryCalls
from serve.live.items import (
    CLOSED_S,
    Input,
    Kept,
    Receipt,
    Refusal,
    SessionError,
    SessionEvent,
    SessionOptions,
)
from serve.live.keeping import due, keep
from serve.live.load import load_of, report_of
from serve.live.pace import Pace
from serve.live.past import Past
from serve.live.records import Replayed, replayed
from serve.live.relief import Relief
from serve.live.rounds import Rounds, repeat
from serve.live.session import LiveSession, MovedError
from serve.observe import replica as observed
from serve.observe.instruments import Sample
from serve.scaling import Report

_log = logging.getLogger("longreel.sessions")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class OwnerSettings:
    """What an owner needs to know.

    Attributes:
        replica: by which name calls are routed here.
        fps, side: of the checkpoint.
        decode: token ids to text.
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
        #: Each for as long as somebody holds it or waits for it.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._past = Past(store) if store else None
        #: Lives of which the log may hold what no snapshot does.
        self._taken_in: set[str] = set()
        #: For whoever asks for the last events of what was just closed.
        self._closed: dict[str, LiveSession] = {}
        self._pace = Pace(loop.times)
        self._waiting_sessions = 0
        self._relief = Relief(self._pace, lambda: self._sessions, self._offload)
        self._rounds = Rounds(self._care_for)
        self._begin()

    def _begin(self) -> None:
        self.name = f"{self._settings.replica}-{secrets.token_hex(4)}"
        wrote = partial(observed.store_wrote, "log")
        self._log = SessionLog(self._store, self.name, wrote) if self._store else None

    async def run(self) -> None:
        """Report and look after sessions until cancelled."""
        # A task each: who is silent is declared lost, and snapshots may take longer than that.
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(repeat(self._report, "the directory hears nothing of this replica"))
            tasks.create_task(repeat(self._look_after, "sessions are not looked after"))

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
        if (closed := self._closed.get(manifest.session)) and closed.is_of(manifest):
            return closed.transcript.after(after)
        return await self._with(manifest, lambda session: session.events(after, wait_s))

    async def kept(self, manifest: Manifest, frame: int) -> Kept | Refusal:
        """See ``LiveSession.kept``."""
        return await self._with(manifest, lambda session: session.kept(frame))

    async def counts(self, manifest: Manifest) -> dict[str, Any] | Refusal:
        """Inputs and events of a session so far."""

        async def count(session: LiveSession) -> dict[str, Any]:
            return session.counts()

        return await self._with(manifest, count)

    async def drop(self, life: str) -> dict[str, Any] | None:
        """End a session that is closed; another may have its name by now.

        Returns:
            Its last ``counts``; None where it is not here.
        """
        return await asyncio.shield(self._drop(life, closed=True))

    async def _drop(self, life: str, *, closed: bool) -> dict[str, Any] | None:
        session, counts = session_of(life), None
        async with self._lock(session):
            self._taken_in.discard(life)
            have = self._sessions.get(session)
            if have is not None and have.life == life:
                del self._sessions[session]
                if closed:
                    have.used = time.monotonic()
                    self._closed[session] = have
                await have.end(told=closed)
                counts = have.counts()
                if self._log is not None:
                    self._log.forget(have.life, 2**62)
        return counts

    def load(self) -> Load:
        """How full this replica is."""
        sessions = list(self._sessions.values())
        memory, relieved = self._settings.memory(), self._relief.relieved
        return load_of(sessions, self._pace, memory, relieved, time.monotonic())

    def report(self) -> Report:
        """What the autoscaling policy is told."""
        return report_of(self.load(), self._loop.bulk_calls, self._waiting_sessions)

    def samples(self) -> list[Sample]:
        """Metrics of this replica."""
        _, capacity = self._settings.memory()
        return observed.samples(self._loop.engine, capacity, self.load())

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
            await self._begin_anew(manifest.owner)
            return Refusal("stale")
        except SnapshotError as error:
            _log.warning("it cannot go on here: %s", error, extra={"session": manifest.session})
            return Refusal("unavailable", f"the session cannot go on here: {error}")
        except (StorageError, ModelError) as error:
            _log.warning("a call failed: %s", error, extra={"session": manifest.session})
            # Where the state store lies is no client's to know.
            away = f"the state store fails: {error.kind}" if isinstance(error, StorageError) else ""
            return Refusal("unavailable", away or str(error))

    # Taking in

    def _lock(self, session: str) -> asyncio.Lock:
        return self._locks.setdefault(session, asyncio.Lock())

    async def _session(self, manifest: Manifest) -> LiveSession | Refusal:
        have = self._sessions.get(manifest.session)
        if have is not None and have.is_of(manifest) and have.broken is None:
            return have
        if manifest.owner != self.name:
            return Refusal("stale")
        async with self._lock(manifest.session):
            return await self._take_in(manifest)

    async def _take_in(self, manifest: Manifest) -> LiveSession | Refusal:
        started, broken = time.monotonic(), False
        # As long as it takes, this owner may be declared lost and come as a new one.
        name, log = self.name, self._log
        options = SessionOptions.of(manifest.options)
        if options.durable:
            # The caller's may be old; what others did to the session meanwhile stands here.
            if self._directory is None or self._past is None:
                return Refusal("unavailable", "sessions are not kept by this service")
            now = await self._directory.manifest(manifest.session)
            same = (now.life, now.epoch) == (manifest.life, manifest.epoch)
            if now.owner != name or not same:
                return Refusal("stale")
            manifest = now
        have = self._sessions.get(manifest.session)
        if have is not None:
            if have.is_of(manifest) and have.broken is None:
                return have
            broken = have.broken is not None
            del self._sessions[manifest.session]
            await have.end(told=False)
            # What it still acknowledges is to be found in the log.
            await have.settled()
        if not options.durable and manifest.counts.get("seq"):
            # Only its gateway has what it was given, and gives it again as another life.
            return Refusal("stale")
        snapshot: bytes | None = None
        records: list[Record] = []
        if self._past is not None and options.durable:
            mine = manifest.life in self._taken_in
            found = await self._past.of(manifest, name, mine=mine)
            if found is None:
                return Refusal("stale")
            snapshot, records = found
        session = LiveSession(
            self._loop,
            manifest,
            options,
            self._settings.decode,
            fps=self._settings.fps,
            side=self._settings.side,
            log=log if options.durable else None,
        )

        def past(after: int) -> Replayed:
            return replayed(effective(records, after), after)

        await session.begin(snapshot, past)
        if self.name != name:
            await session.end(told=False)
            return Refusal("stale")
        if cause := self._cause(manifest, broken=broken):
            session.came_back(cause, started)
            _log.info("taken in (%s)", cause, extra={"session": manifest.session})
        self._sessions[manifest.session] = session
        if options.durable:
            self._taken_in.add(manifest.life)
        return session

    def _cause(self, manifest: Manifest, *, broken: bool) -> str | None:
        """Why a session had to be taken in, None where it begins."""
        if broken:
            return "engine"
        if any(owner != self.name for owner in manifest.tail):
            return "lost"
        return "idle" if manifest.snapshot else None

    # Letting go

    async def _report(self) -> None:
        live = [s for s in self._sessions.values() if s.options.kind == "live"]
        self._pace.look(time.monotonic(), {s.id: (s.counters.frames, s.counters.fps) for s in live})
        if self._directory is None:
            return
        name = self.name
        reply = await self._directory.report(name, self._settings.replica, self.load())
        if reply is None:
            await self._begin_anew(name)
            return
        self._waiting_sessions = reply.waiting_sessions
        if reply.relieve:
            self._relief.begin()

    async def _begin_anew(self, lost: str | None) -> None:
        """This owner was declared lost: what it has is others', and it comes as a new one.

        Args:
            lost: its name then; several calls may find it out.
        """
        if self.name != lost:
            return
        _log.warning("declared lost as %s, with %d sessions", self.name, len(self._sessions))
        sessions, self._sessions = self._sessions, {}
        if self._log is not None:
            self._log.close()
        self._begin()
        self._taken_in.clear()
        for session in sessions.values():
            # Before anything is waited for: none of them acknowledges anything any more.
            session.leave()
        for session in sessions.values():
            await session.end(told=False)

    async def _look_after(self) -> None:
        now = time.monotonic()
        self._closed = {n: s for n, s in self._closed.items() if now - s.used < CLOSED_S}
        await self._rounds.go(list(self._sessions.values()))

    async def _care_for(self, session: LiveSession) -> bool:
        """Keep a session, or let it go, if that is due; whether it was."""
        idle = not session.readers and time.monotonic() - session.used > self._settings.idle_s
        if not session.options.durable:
            if idle:
                # Its gateway may be gone; one that is there begins it again.
                await self._drop(session.life, closed=False)
        elif idle:
            await self._offload(session)
        elif due(session) and not session.leaving:  # its last snapshot is another's
            return await self._renew(session)
        return idle

    async def _renew(self, session: LiveSession) -> bool:
        # Who takes it in anew from the snapshot before would miss what the log lets go of.
        async with self._lock(session.id):
            if self._sessions.get(session.id) is not session:
                return False
            return await self._keep(session, in_memory=True)

    async def _offload(self, session: LiveSession) -> bool:
        """Let a session go that does not wait; whether the store has it now."""
        # Nobody may take it in again while it is on its way out.
        async with self._lock(session.id):
            if self._sessions.get(session.id) is not session:
                return False
            name = self.name
            del self._sessions[session.id]
            try:
                kept = await self._keep(session, in_memory=False)
                observed.OFFLOADS.inc(kept)
                if kept:
                    self._taken_in.discard(session.life)
                # Where it leaves all the same, or that was declared lost, it is others'.
                if kept or session.leaving or self.name != name:
                    await session.end(told=False)
                else:
                    self._sessions[session.id] = session
                return kept
            except BaseException:
                # Who calls for it takes it in from the store.
                await session.end(told=False)
                raise

    async def _keep(self, session: LiveSession, *, in_memory: bool) -> bool:
        """See ``serve.live.keeping.keep``; what the log has of it can go then."""
        assert self._store is not None
        assert self._directory is not None
        if not await keep(session, self._store, self._directory, in_memory=in_memory):
            return False
        if self._log is not None:
            self._log.forget(session.life, session.snapshot_seq)
        return True
