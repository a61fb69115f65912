"""Keeps what belongs to one API key from all others, between routes and what they reach.

Sessions, streams and jobs of another key are answered like such as do not exist. Who is served
comes from ``serve.keys.serving``; where that says nobody in particular, calls pass as they are.
What belongs to no key, such as what was made while keys were off, belongs to none of them.
"""

from __future__ import annotations

import asyncio
import builtins
import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

from actors.keepout import lies_in
from actors.objects import located, normalize_uri
from longreel.errors import StorageError, UsageError
from mod.checkpoint import TINY
from serve.calls import Sessions
from serve.keys.serving import caller, owner, sees
from serve.keys.usage import require_jobs, require_stream
from serve.live.items import Input, Kept, Receipt, SessionError, SessionEvent, SessionOptions
from serve.live.items import SessionView as View
from serve.remembered import Remembered
from serve.routes.context import Context, Jobs, Streams

#: Seconds for which no other key may use the name of a session that was closed: as long as a call
#: on it may be on its way, so that none ever reaches another's.
LEFT_S = 120.0
_ACTIVE_JOBS = ("pending", "running")
_OVER_STREAMS = ("ended", "failed")


def owned(context: Context) -> Context:
    """``context`` for a service whose clients have keys."""
    sessions = OwnedSessions(context.sessions)
    return replace(
        context,
        sessions=sessions,
        streams=context.streams and OwnedStreams(context.streams, sessions, context.model.fps),
        jobs=context.jobs
        and OwnedJobs(
            context.jobs, context.store, context.settings.summarizers, (TINY, context.model.name)
        ),
    )


class OwnedSessions:
    """``serve.calls.Sessions``, each key's own."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        # Of chats, which are in no list; they end with the request that opened them.
        self._brief: set[str] = set()
        # Whose session a name was that is free again; see ``LEFT_S``.
        self._left = Remembered[str](LEFT_S)

    async def open(self, options: SessionOptions, session: str | None = None) -> View:
        """See ``serve.calls.Sessions``.

        A name that another key has is refused as one that is taken, which it is: names are one
        space, and tell nothing but that somebody uses them.
        """
        if (who := caller()) is None:
            return await self._sessions.open(options, session)
        name = session or secrets.token_hex(8)
        await self.begin(name)
        if not options.durable:
            self._brief.add(name)
        try:
            view = await self._sessions.open(replace(options, owner=who.id), name)
        except BaseException:
            self._end(name)
            raise
        if options.durable:
            who.usage.sessions.opened(name)
        return view

    async def begin(self, session: str) -> None:
        """Take a place among the key's sessions; see ``serve.keys.usage.OpenSessions``.

        Raises:
            QuotaError: there is none.
            SessionError: ``invalid_value``: the name was another key's a moment ago.
        """
        who = caller()
        assert who is not None
        if self._left.get(session) not in (None, who.id):
            raise SessionError("invalid_value", f"there is a session {session!r} already")

        async def listed() -> set[str]:
            return {view.id for view in await self.list()}

        await who.usage.sessions.begin(session, listed)

    def _end(self, session: str) -> None:
        self._brief.discard(session)
        if (who := caller()) is not None:
            who.usage.sessions.ended(session)

    async def owner(self, session: str) -> str | None:
        """See ``serve.calls.Sessions``."""
        await self._check(session)
        return owner()

    async def give(
        self, session: str, inputs: Sequence[Input], seq: int | None = None
    ) -> list[Receipt]:
        """See ``serve.calls.Sessions``."""
        await self._check(session)
        return await self._sessions.give(session, inputs, seq)

    async def cancel(self, session: str, response: str | None = None) -> bool:
        """See ``serve.calls.Sessions``."""
        await self._check(session)
        return await self._sessions.cancel(session, response)

    async def events(
        self, session: str, after: int = 0, wait_s: float = 10.0
    ) -> list[SessionEvent]:
        """See ``serve.calls.Sessions``."""
        await self._check(session)
        told = await self._sessions.events(session, after, wait_s)
        # While this waited it may have been closed, and its name be another's since.
        await self._check(session)
        return told

    async def kept(self, session: str, frame: int) -> Kept:
        """See ``serve.calls.Sessions``."""
        await self._check(session)
        return await self._sessions.kept(session, frame)

    async def view(self, session: str) -> View:
        """See ``serve.calls.Sessions``."""
        await self._check(session)
        found = await self._sessions.view(session)
        if not sees(found.options.owner):
            raise _no_session(session)
        return found

    async def list(self) -> list[View]:
        """See ``serve.calls.Sessions``."""
        return [view for view in await self._sessions.list() if sees(view.options.owner)]

    async def close(self, session: str) -> None:
        """See ``serve.calls.Sessions``."""
        await self._check(session)
        try:
            await self._sessions.close(session)
        except BaseException:
            if session in self._brief:  # nobody closes it again
                self._end(session)
            raise
        self._end(session)
        if (who := caller()) is not None:
            self._left.put(session, who.id)

    async def _check(self, session: str) -> None:
        if caller() is not None and not sees(await self._sessions.owner(session)):
            raise _no_session(session)


def _no_session(session: str) -> SessionError:
    return SessionError("session_not_found", f"there is no session {session!r}")


class OwnedStreams:
    """``Streams``, each key's own.

    Args:
        fps: of sessions that name none.
    """

    def __init__(self, streams: Streams, sessions: OwnedSessions, fps: float) -> None:
        self._streams, self._sessions, self._fps = streams, sessions, fps

    async def start(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """See ``Streams``; its session is one of the key's."""
        if (who := caller()) is None:
            return await self._streams.start(wanted)
        options: SessionOptions = wanted["options"]
        name = wanted.get("id") or f"stream-{secrets.token_hex(6)}"
        async with who.usage.streams:
            if who.usage.limits.frames_per_second is not None:
                pulled = [s["fps"] for s in await self.list() if s["state"] not in _OVER_STREAMS]
                require_stream(who.usage.limits, pulled, options.fps or self._fps)
            await self._sessions.begin(name)
            try:
                told = await self._streams.start(
                    {**wanted, "id": name, "options": replace(options, owner=who.id)}
                )
            except BaseException:
                who.usage.sessions.ended(name)
                raise
            who.usage.sessions.opened(name)
            return told

    async def list(self) -> list[dict[str, Any]]:
        """See ``Streams``."""
        return [each for each in await self._streams.list() if sees(each["owner"])]

    async def get(self, stream: str) -> dict[str, Any] | None:
        """See ``Streams``."""
        return _seen(await self._streams.get(stream))

    async def stop(self, stream: str) -> dict[str, Any] | None:
        """See ``Streams``."""
        return None if await self.get(stream) is None else await self._streams.stop(stream)


class OwnedJobs:
    """``Jobs``, each key's own.

    Args:
        store: uri of the state store, which no job may read or write.
        summarizers: endpoints that jobs may name.
        models: names of models that they may, beside folders of the nodes.
    """

    def __init__(
        self,
        jobs: Jobs,
        store: str,
        summarizers: Sequence[str] = (),
        models: Sequence[str] = (TINY,),
    ) -> None:
        self._jobs, self._store = jobs, store
        self._summarizers, self._models = summarizers, models

    async def submit(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """See ``Jobs``."""
        if (who := caller()) is None:
            return await self._jobs.submit(wanted)
        if (endpoint := wanted.get("summarizer")) and endpoint not in self._summarizers:
            # The cluster would call any address for the client, with a key of its own.
            raise UsageError("summarizer: jobs may not name this endpoint")
        model = wanted.get("model")
        if model and not model.startswith("/") and model not in self._models:
            # Whatever else it is on the hub, the cluster would fetch it.
            raise UsageError("model: jobs may name the model that is served, or a folder")
        wanted = {**wanted, "owner": who.id}
        if who.usage.limits.jobs is None:
            return await self._submit(wanted)
        async with who.usage.jobs:
            active = sum(each["status"] in _ACTIVE_JOBS for each in await self.list())
            require_jobs(who.usage.limits, active)
            return await self._submit(wanted)

    async def _submit(self, wanted: dict[str, Any]) -> dict[str, Any]:
        # Names of thousands of files, each looked up in the file system.
        await asyncio.to_thread(_require_outside, wanted, self._store)
        return await self._jobs.submit(wanted)

    async def list(self) -> builtins.list[dict[str, Any]]:
        """See ``Jobs``."""
        return [each for each in await self._jobs.list() if sees(each["owner"])]

    async def get(self, job: str) -> dict[str, Any] | None:
        """See ``Jobs``."""
        return _seen(await self._jobs.get(job))

    async def cancel(self, job: str) -> dict[str, Any] | None:
        """See ``Jobs``."""
        return None if await self.get(job) is None else await self._jobs.cancel(job)


def _seen(found: dict[str, Any] | None) -> dict[str, Any] | None:
    return found if found is not None and sees(found["owner"]) else None


def _places(wanted: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What a job is to read and write, each with its field."""
    yield from (("sources", uri) for uri in wanted["sources"])
    yield "output", wanted["output"]
    if (model := wanted.get("model") or "").startswith("/"):
        yield "model", model


def _require_outside(wanted: dict[str, Any], store: str) -> None:
    """Raises ``UsageError`` where a job is to read or write what the service keeps in ``store``."""
    store = normalize_uri(store)
    for field, uri in _places(wanted):
        if ".." in unquote(uri).split("/"):
            # Where a link stands before it, it leads elsewhere for whoever reads it as text.
            raise UsageError(f"{field}: {uri!r} is not for jobs: it has '..' in it")
        try:
            inside = touches(uri, store)
        except StorageError as failure:
            raise UsageError(f"{field}: {failure.message}") from None
        if inside:
            raise UsageError(
                f"{field}: {uri!r} is not for jobs: the service keeps its own state there"
            )


def touches(uri: str, store: str) -> bool:
    """Whether what ``uri`` names to a job, a glob too, may lie in ``store`` or hold it.

    Args:
        store: normalized.

    Raises:
        StorageError: it is no uri.
    """
    named = located(uri)
    fixed = re.split(r"[*?\[{]", named, maxsplit=1)[0]
    if fixed != named:  # what a folder's name begins with; the folder itself is whole
        fixed = fixed[: fixed.rfind("/") + 1]
    fixed = normalize_uri(fixed)
    return lies_in(fixed, store) or lies_in(store, fixed)
