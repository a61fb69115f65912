"""Calls on sessions through Ray Serve: to the owner while it is there, to the next one after it.

What the caller sees of a lost replica is time: an input that was not acknowledged is given again
under its own sequence number, and events are asked for after the last one that came.
"""

from __future__ import annotations

import asyncio
import contextvars
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, replace
from typing import Any

from grpc.aio import AioRpcError
from ray.actor import ActorHandle
from ray.exceptions import ActorUnavailableError, RayActorError, RayError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle, DeploymentResponse

from actors.directory import DirectoryError
from actors.statestore import Manifest
from longreel.errors import StorageError
from serve.brief import MOST_BEGINNINGS, Brief
from serve.live.items import (
    CLOSED_S,
    Input,
    Kept,
    Receipt,
    Refusal,
    SessionError,
    SessionEvent,
    SessionOptions,
    SessionView,
)
from serve.observe.ids import carried
from serve.observe.traces import span
from serve.remembered import Remembered
from serve.routable import ROUTABLE

#: How long a call looks for an owner that takes it, in seconds.
PATIENCE_S = 60.0
#: How long a replica may be unknown to this process's router before it counts as gone: it hears
#: of new ones a moment after they report.
UNKNOWN_S = 10.0
#: How long a call straight to a replica may take before Ray's own call is asked, which knows when
#: a replica is gone; more than any wait for events.
DIRECT_S = 20.0
_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.02, 1.0


class PinnedSessions:
    """``serve.calls.Sessions`` on a cluster.

    Args:
        replica: handle to the replicas.
        directory: the session directory; None where sessions are not kept, and only such as are
            not ``durable`` can be opened.

    Attributes:
        moving: called with the sessions whose replica calls reach no more.
    """

    def __init__(self, replica: DeploymentHandle, directory: ActorHandle | None) -> None:
        self._replica, self._directory = replica, directory
        self._handles: dict[tuple[str, str, bool], DeploymentHandle] = {}
        self._known: dict[str, Manifest] = {}
        self._brief: dict[str, Brief] = {}
        self._closed = Remembered[Manifest](CLOSED_S)
        self.moving: Callable[[list[str]], None] = lambda _: None
        loop = asyncio.get_running_loop()

        def gone(name: str) -> None:
            # Whoever tells is the router: it must not fail on sessions whose loop has ended.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._replica_gone, name)

        ROUTABLE.when_gone(gone)
        self._tasks: set[asyncio.Task[None]] = set()

    # The protocol

    async def open(self, options: SessionOptions, session: str | None = None) -> SessionView:
        """See ``serve.calls.Sessions``."""
        name = session or secrets.token_hex(8)
        self._closed.forget(name)
        if not options.durable:
            manifest = await self._place(name, options, 1)
            self._brief[name] = Brief(manifest, options)
        else:
            manifest = await self._assigned("open", name, asdict(options), secrets.token_hex(8))
            self._known[name] = manifest
        # Refused here if its options cannot work, and its opening is computed meanwhile.
        try:
            counts = await self._call(name, "session_counts")
        except SessionError as error:
            if error.code in ("invalid_value", "context_length_exceeded"):
                await self._forget(manifest)
                self._known.pop(name, None)
            raise
        return _view(manifest, "live", counts)

    async def give(
        self, session: str, inputs: Sequence[Input], seq: int | None = None
    ) -> list[Receipt]:
        """See ``serve.calls.Sessions``."""
        if brief := self._brief.get(session):
            async with brief.giving:
                first = len(brief.inputs) + 1 if seq is None else seq
                receipts: list[Receipt] = await self._call(
                    session, "session_give", inputs, first, None
                )
                brief.inputs += inputs[len(brief.inputs) + 1 - first :]
                return receipts
        # What was not answered is given again; by its token it is known if it was taken in.
        token = secrets.token_hex(8) if seq is None else None
        given: list[Receipt] = await self._call(session, "session_give", inputs, seq, token)
        # The attempt before was this call's own: to the client nothing is repeated.
        return given if token is None else [replace(r, repeated=False) for r in given]

    async def cancel(self, session: str, response: str | None = None) -> bool:
        """See ``serve.calls.Sessions``."""
        done: bool = await self._call(session, "session_cancel", response)
        return done

    async def events(
        self, session: str, after: int = 0, wait_s: float = 10.0
    ) -> list[SessionEvent]:
        """See ``serve.calls.Sessions``."""
        if closed := self._closed.get(session):
            return await self._last_events(closed, after)
        found: list[SessionEvent] = await self._call(
            session, "session_events", after, min(wait_s, 10.0)
        )
        return found

    async def _last_events(self, manifest: Manifest, after: int) -> list[SessionEvent]:
        """Of a session that was closed a moment ago."""
        reply: Any = None
        with suppress(RayError, RayServeException):
            handle = self._handle(manifest.replica or "", "session_events")
            reply = await _sent(handle, manifest, after, 0.0)
        if isinstance(reply, list) and reply:
            return reply
        raise SessionError("session_closed", f"session {manifest.session!r} is closed")

    async def kept(self, session: str, frame: int) -> Kept:
        """See ``serve.calls.Sessions``."""
        found: Kept = await self._call(session, "session_kept", frame)
        return found

    async def view(self, session: str) -> SessionView:
        """See ``serve.calls.Sessions``."""
        if brief := self._brief.get(session):
            return _view(brief.manifest, "live", await self._call(session, "session_counts"))
        if closed := self._closed.get(session):
            return _view(closed, "closed", closed.counts)
        manifest: Manifest = await self._ask("manifest", session)
        if manifest.owner is None:
            return _view(manifest, "idle", manifest.counts)
        if ROUTABLE.has_gone(manifest.replica or ""):
            return _view(manifest, "recovering", manifest.counts)
        counts = await self._call(session, "session_counts")
        state = "recovering" if counts["replaying"] else "live"
        return _view(self._known.get(session, manifest), state, counts)

    async def owner(self, session: str) -> str | None:
        """See ``serve.calls.Sessions``."""
        brief = self._brief.get(session)
        manifest = brief.manifest if brief else self._closed.get(session)
        manifest = manifest or self._known.get(session) or await self._ask("manifest", session)
        found: str | None = manifest.options.get("owner")
        return found

    async def list(self) -> list[SessionView]:
        """See ``serve.calls.Sessions``; counts are those of the last snapshots."""
        if self._directory is None:
            return []
        found: list[Manifest] = await self._ask("manifests")
        return [_view(m, "idle" if m.owner is None else "live", m.counts) for m in found]

    async def close(self, session: str) -> None:
        """See ``serve.calls.Sessions``."""
        # To its end when the client leaves: its replica would not hear of it.
        await asyncio.shield(self._close(session))

    async def _close(self, session: str) -> None:
        if brief := self._brief.get(session):
            manifest = brief.manifest
        else:
            try:
                manifest = await self._ask("manifest", session)
            except SessionError as error:
                # Closed before, as by a call of this client's that got no answer.
                if error.code == "session_not_found" and (known := self._known.get(session)):
                    await self._drop(known)
                raise
        # First: while that may fail, readers hear nothing of it and its log stays.
        try:
            await self._forget(manifest)
        except SessionError as error:
            # So says a directory that is asked again since the one before died after it was done.
            if error.code != "session_not_found":
                raise
        await self._drop(manifest)

    async def _drop(self, manifest: Manifest) -> None:
        """The session is closed: its replica, and who asks here, hear of it."""
        session, known = manifest.session, self._known.get(manifest.session)
        reopened = known is not None and known.life != manifest.life  # another has its name by now
        if known is not None and not reopened:
            del self._known[session]
            if manifest.replica is None:  # it left the replica that who asks here knows of
                manifest = replace(known, counts=manifest.counts)
        if manifest.replica is not None and not ROUTABLE.has_gone(manifest.replica):
            if not reopened:
                self._closed.put(session, manifest)
            # If it is gone, the session in its memory went with it.
            with suppress(RayError, RayServeException):
                counts = await _sent(self._handle(manifest.replica, "session_drop"), manifest.life)
                if counts is not None and self._closed.get(session) is manifest:
                    self._closed.put(session, replace(manifest, counts=counts))

    # Finding the owner

    async def _forget(self, manifest: Manifest) -> None:
        if manifest.session not in self._brief:
            await self._ask("forget", manifest.life)
        self._brief.pop(manifest.session, None)

    async def _call(self, session: str, method: str, *args: Any) -> Any:
        deadline = time.monotonic() + PATIENCE_S
        pause = _FIRST_PAUSE_S
        unknown_until = away_until = time.monotonic() + UNKNOWN_S
        direct, made = True, None
        while True:
            manifest = await self._manifest(session)
            # A name may be used anew, by another client, while this looks for the owner.
            made = manifest.created if made is None or session in self._brief else made
            if manifest.created != made:
                raise SessionError("session_not_found", f"there is no session {session!r}")
            assert manifest.owner is not None
            assert manifest.replica is not None
            there = ROUTABLE.has(manifest.replica)
            reply: Any = Refusal("stale")
            try:
                handle = self._handle(manifest.replica, method, direct=direct)
                async with asyncio.timeout(DIRECT_S if direct else None):
                    with self._span(method, session):
                        reply = await _sent(handle, manifest, *args)
            except TimeoutError:
                reply = Refusal("unavailable", "the replica does not answer")
            except BackPressureError:
                raise SessionError("overloaded", "the service has too much to do") from None
            except ActorUnavailableError as failure:
                reply = Refusal("unavailable", str(failure).splitlines()[0])
                if time.monotonic() > away_until:
                    await self._lost(manifest, "it cannot be reached")
            except RayActorError as failure:
                await self._lost(manifest, f"{type(failure).__name__}")
            except (RayError, RayServeException, AioRpcError) as failure:
                reply = Refusal("unavailable", str(failure).splitlines()[0])
            # A connection that broke does not say whether the replica is gone; Ray's own call does.
            direct = False
            if not isinstance(reply, Refusal):
                return reply
            if reply.code == "stale":
                gone = ROUTABLE.has_gone(manifest.replica)
                unknown = not there and time.monotonic() > unknown_until
                # No store has it either.
                let_go = there and session in self._brief
                if gone or unknown or let_go:
                    await self._lost(manifest, "calls reach it no more")
                self._known.pop(session, None)
            if reply.code not in ("stale", "unavailable") or time.monotonic() > deadline:
                code = "unavailable" if reply.code == "stale" else reply.code
                raise SessionError(code, reply.message or "no replica took the call")
            await asyncio.sleep(pause)
            pause = min(_LAST_PAUSE_S, 2 * pause)

    @staticmethod
    def _span(method: str, session: str) -> AbstractContextManager[object]:
        if method == "session_events":  # a reader makes one every few seconds, for hours
            return nullcontext()
        return span(method, "CLIENT", longreel__session=session)

    async def _manifest(self, session: str) -> Manifest:
        if brief := self._brief.get(session):
            async with brief.beginning:
                return brief.known()
        if self._closed.get(session):
            raise SessionError("session_closed", f"session {session!r} is closed")
        manifest = self._known.get(session)
        if manifest is None:
            manifest = self._known[session] = await self._assigned("locate", session)
        return manifest

    async def _lost(self, manifest: Manifest, reason: str) -> None:
        if brief := self._brief.get(manifest.session):
            await self._begin_again(brief, manifest.epoch)
            return
        self._known.pop(manifest.session, None)
        if manifest.owner is not None:
            await self._ask("lost", manifest.owner, reason)

    async def _begin_again(self, brief: Brief, lost: int) -> None:
        """Give a replica all that the chat was given; once, however many calls find it ``lost``."""
        async with brief.beginning:
            session, epoch = brief.manifest.session, brief.manifest.epoch
            if epoch != lost:
                return
            if epoch == MOST_BEGINNINGS:
                raise SessionError("unavailable", f"replicas lost the session {epoch} times")
            brief.manifest = await self._place(session, brief.options, epoch + 1)
            if brief.inputs:
                handle = self._handle(brief.manifest.replica or "", "session_give")
                # Where it is not taken, the next call finds it lost again.
                with suppress(RayError, RayServeException):
                    await _sent(handle, brief.manifest, brief.inputs, 1, None)

    async def _place(self, session: str, options: SessionOptions, epoch: int) -> Manifest:
        if self._directory is None:
            owner, replica = await _sent(self._replica.session_owner)
        else:
            owner, replica = await self._assigned("place")
        return Manifest(session, time.time(), asdict(options), epoch, owner, replica)

    async def _assigned(self, method: str, *args: Any) -> Any:
        """The directory's answer to a call that needs a replica."""
        if not ROUTABLE.there():
            # A call that waits for one makes Ray Serve start it.
            self._later(_sent(self._replica.session_owner))
        return await self._ask(method, *args)

    async def _ask(self, method: str, *args: Any) -> Any:
        if self._directory is None:
            raise SessionError("unavailable", "this service keeps no sessions")
        try:
            return await getattr(self._directory, method).remote(*args)
        except DirectoryError as error:
            raise SessionError(error.code, error.message) from None
        except StorageError as error:
            raise SessionError("unavailable", f"the state store fails: {error.kind}") from None
        except RayActorError:
            raise SessionError("unavailable", "the session directory is away") from None

    def _handle(self, replica: str, method: str, *, direct: bool = False) -> DeploymentHandle:
        """For calls of ``method``.

        Args:
            direct: by a connection of the two processes, which takes a third less time than a
                call of an actor.
        """
        key = replica, method, direct
        if key not in self._handles:
            self._handles[key] = self._replica.options(
                method_name=method, session_id=replica, _by_reference=not direct
            )
        return self._handles[key]

    def _replica_gone(self, replica: str) -> None:
        self._handles = {k: h for k, h in self._handles.items() if k[0] != replica}
        self.moving([s for s, m in self._known.items() if m.replica == replica])
        self._known = {s: m for s, m in self._known.items() if m.replica != replica}
        if self._directory is not None:
            self._later(self._ask("gone", replica))

    def _later(self, what: Awaitable[Any]) -> None:
        async def quietly() -> None:
            with suppress(SessionError, RayError, RayServeException):
                await what

        task = asyncio.ensure_future(quietly())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _sent(handle: DeploymentHandle, *args: Any) -> DeploymentResponse[Any]:
    """A call with an id of its own.

    Ray Serve gives all calls made for one HTTP request the id of that request, and its router
    keeps calls that wait for a replica by their id: of two of one request, such as a connection's
    for events and with frames, one would wait for ever (2.60).
    """
    response: DeploymentResponse[Any] = contextvars.Context().run(handle.remote, *args, **carried())
    return response


def _view(manifest: Manifest, state: Any, counts: dict[str, Any]) -> SessionView:
    return SessionView(
        id=manifest.session,
        state=state,
        options=SessionOptions.of(manifest.options),
        seq=counts.get("seq", 0),
        frames=counts.get("frames", 0),
        waiting_frames=counts.get("waiting_frames", 0),
        events=counts.get("events", 0),
        replica=manifest.replica,
        epoch=manifest.epoch,
        created=manifest.created,
    )
