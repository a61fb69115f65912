"""Streams as the API knows them: an actor each, and what is kept of them in the state store.

One process pulls one source. Media from outside is decoded there, so that what makes a decoder
crash, or a look-up that nothing can interrupt, ends with that process and touches no other stream.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import RayError

from actors.objects import printable_uri
from actors.reported import reported
from actors.statestore import SESSION_ID
from longreel import metrics
from longreel.errors import StorageError
from serve.addresses import check_outside
from serve.calls import Sessions
from serve.decoding.limits import limit_memory
from serve.directory import directory_handle
from serve.handles import replica_handle
from serve.live.items import SessionError, SessionOptions
from serve.pinned import PinnedSessions
from serve.routes.context import ApiSettings, ModelInfo
from serve.sources.addresses import SourceError, SourceSettings, check_bucket, place_of
from serve.sources.following import Follower
from serve.sources.records import (
    StreamRecord,
    delete_record,
    read_record,
    read_records,
    write_record,
)

NAMESPACE = "longreel"
#: Streams at a time: each is a process of some 200 MB and decodes on a core when it must.
MOST_STREAMS = 32
_ANSWER_S = 1.0
#: So long a stream may be on its way from its record to its process.
_BEGINS_S = 120.0
_MOST_DEATHS = 5
#: Of one process that pulls, which holds some 200 MB itself.
_MEMORY_BYTES = 4 * 2**30
_KEEP_AGAIN_S = 2.0
_TELL_S = 2.0

#: Called where a stream is pulled, to reach the sessions from there; travels to that process.
MakeSessions = Callable[[], Sessions]


@dataclass(frozen=True)
class ServedSessions:
    """``MakeSessions`` of the running application.

    Attributes:
        directory: name of the session directory's actor.
    """

    directory: str

    def __call__(self) -> Sessions:
        """Sessions on its replicas; a loop must run."""
        return PinnedSessions(replica_handle(), directory_handle(self.directory))


class Puller:
    """Actor that follows one source, begun again where it died.

    Args:
        url: with credentials; Ray keeps it for a restart, the state store never sees it.
        stream: id; its record lies in ``store``.
    """

    def __init__(
        self,
        url: str,
        stream: str,
        store: str,
        make_sessions: MakeSessions,
        settings: SourceSettings,
    ) -> None:
        limit_memory(_MEMORY_BYTES)
        self._url, self._stream, self._store = url, stream, store
        self._make_sessions, self._settings = make_sessions, settings
        self._follower: Follower | None = None
        self._over = asyncio.Event()
        # Begun here: nobody calls an actor that Ray has started again.
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def record(self) -> dict[str, Any] | None:
        """How it stands; None while it begins."""
        return self._follower.record.as_dict() if self._follower else None

    async def stop(self) -> None:
        """End it; returns when that is kept."""
        if self._follower:
            self._follower.stop()
            await self._over.wait()

    async def _run(self) -> None:
        record = await _until_done(lambda: read_record(self._store, self._stream))
        if record is not None and not record.over:
            record = replace(record, deaths=record.deaths + 1)
            if record.deaths > _MOST_DEATHS:
                error = f"the process that pulls it died {record.deaths} times without a frame"
                record = _failed(record, error)
            await _until_done(lambda: write_record(self._store, record))
        if record is not None and not record.over:
            record = await self._follow(record)
            await _until_done(lambda: write_record(self._store, record))
        self._over.set()
        # One that only ended would be started again.
        ray.kill(ray.get_runtime_context().current_actor, no_restart=True)

    async def _follow(self, record: StreamRecord) -> StreamRecord:
        follower = Follower(
            self._url,
            record,
            self._make_sessions(),
            self._settings,
            lambda kept: write_record(self._store, kept),
        )
        self._follower = follower
        telling = asyncio.create_task(_tell(follower))
        try:
            return await follower.run()
        except Exception as failure:  # whatever it is, the stream must not seem to go on
            return _failed(follower.record, f"pulling it failed ({type(failure).__name__})")
        finally:
            telling.cancel()


async def _tell(follower: Follower) -> None:
    """Tell of a stream in metrics until cancelled."""
    pulled = reported(metrics.STREAMS)
    counted = {
        "frames": reported(metrics.STREAM_FRAMES),
        "dropped": reported(metrics.STREAM_DROPPED),
        "connections": reported(metrics.STREAM_CONNECTIONS),
    }
    # What a process before this one did was told by it.
    told = {name: getattr(follower.record, name) for name in counted}
    while True:
        pulled.set(1)
        for name, counter in counted.items():
            now = getattr(follower.record, name)
            if now > told[name]:  # Ray refuses 0
                counter.inc(now - told[name])
                told[name] = now
        await asyncio.sleep(_TELL_S)


class RayStreams:
    """``Streams`` over one ``Puller`` for each.

    Args:
        sessions: as they are reached from here.
        make_sessions: makes the same where a stream is pulled.
        store: uri of the state store.
    """

    def __init__(
        self,
        sessions: Sessions,
        make_sessions: MakeSessions,
        model: ModelInfo,
        store: str,
        settings: ApiSettings | None = None,
        sources: SourceSettings | None = None,
        most: int = MOST_STREAMS,
    ) -> None:
        self._sessions, self._make_sessions = sessions, make_sessions
        self._model, self._store, self._most = model, store, most
        self._settings = sources or source_settings(settings or ApiSettings())
        self._undoing: set[asyncio.Task[None]] = set()

    async def start(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """See ``Streams``.

        Args:
            wanted: ``url``, ``reconnect``, ``options`` (``SessionOptions``), and ``id``, a wish
                for the stream and its session, or None.

        Raises:
            SessionError: ``url_not_allowed``, ``url_unreachable``, ``overloaded``, or what opening
                its session raises.
        """
        url, options = str(wanted["url"]), wanted["options"]
        assert isinstance(options, SessionOptions)
        await asyncio.to_thread(self._check, url, bool(wanted.get("reconnect")))
        kept = await asyncio.to_thread(read_records, self._store)
        records = await asyncio.gather(*map(self._now, kept))
        if sum(not record.over for record in records) >= self._most:
            raise SessionError("overloaded", f"all {self._most} streams are taken")
        name = wanted.get("id") or f"stream-{secrets.token_hex(6)}"
        if any(record.id == name for record in records):
            raise SessionError("invalid_value", f"there is a stream {name!r} already")
        session = await self._sessions.open(options, name)
        now = time.time()
        record = StreamRecord(
            id=name,
            url=printable_uri(url),
            session=session.id,
            fps=options.fps or self._model.fps,
            side=self._model.side,
            reconnect=bool(wanted.get("reconnect")),
            created=now,
            began_at=now,
            deaths=-1,  # the first process counts one
            owner=options.owner,
        )
        gone = [now for now, before in zip(records, kept, strict=True) if now.over > before.over]
        begun = asyncio.create_task(self._begin(url, record))
        try:
            await asyncio.shield(begun)
            # Where sessions open, this cluster holds the store: none of them is another's to pull.
            await asyncio.gather(*(asyncio.to_thread(self._keep_failed, record) for record in gone))
        except BaseException as failure:
            undone = asyncio.create_task(self._undo(record, begun))
            self._undoing.add(undone)
            undone.add_done_callback(self._undoing.discard)
            await asyncio.shield(undone)
            if not isinstance(failure, Exception):  # whoever asked has left
                raise
            why = f"the stream cannot be started now ({type(failure).__name__})"
            raise SessionError("unavailable", why) from failure
        return shown(record)

    async def list(self) -> list[dict[str, Any]]:
        """See ``Streams``; those that ended a day ago are forgotten."""
        records = await asyncio.to_thread(read_records, self._store)
        return [shown(each) for each in await asyncio.gather(*map(self._now, records))]

    async def get(self, stream: str) -> dict[str, Any] | None:
        """See ``Streams``."""
        record = await self._known(stream)
        return None if record is None else shown(await self._now(record))

    async def stop(self, stream: str) -> dict[str, Any] | None:
        """See ``Streams``; at most some two seconds, whatever its source does."""
        record = await self._known(stream)
        if record is None or record.over:
            return None if record is None else shown(record)
        actor = await asyncio.to_thread(_actor, stream)
        if actor is not None:
            with suppress(TimeoutError, RayError):
                record = await self._now(record)
                await asyncio.wait_for(_answer(actor.stop.remote()), _ANSWER_S)
            with suppress(RayError):
                # Also where it has answered: it may be about to be started again.
                await asyncio.to_thread(ray.kill, actor, no_restart=True)
        kept = await asyncio.to_thread(read_record, self._store, stream)
        record = kept if kept is not None and kept.over else record
        if not record.over:
            record = replace(record, state="ended", error=None, ended_at=time.time())
            await asyncio.to_thread(write_record, self._store, record)
        return shown(record)

    def _check(self, url: str, reconnect: bool) -> None:
        try:
            if url.startswith("s3://"):
                check_bucket(url, self._settings)
                check_outside(url, self._store)
            else:
                place_of(url, self._settings)
        except SourceError as failure:
            if failure.final:
                raise SessionError("url_not_allowed", failure.message) from None
            if not reconnect:
                raise SessionError("url_unreachable", failure.message) from None

    async def _begin(self, url: str, record: StreamRecord) -> None:
        await asyncio.to_thread(write_record, self._store, record)
        await asyncio.to_thread(self._start, url, record.id)

    async def _undo(self, record: StreamRecord, begun: asyncio.Task[None]) -> None:
        """Leave nothing of a stream that was not begun, or that nobody waits for any more."""
        with suppress(Exception):  # told by whoever wants this
            # Its threads cannot be stopped, and would write again what is deleted here.
            await begun
        with suppress(Exception):
            await self._sessions.close(record.session)
        with suppress(RayError):
            if (actor := await asyncio.to_thread(_actor, record.id)) is not None:
                await asyncio.to_thread(ray.kill, actor, no_restart=True)
        with suppress(StorageError):
            await asyncio.to_thread(delete_record, self._store, record.id)

    def _keep_failed(self, record: StreamRecord) -> None:
        """So that it is forgotten in time; whoever has ended it meanwhile has the last word."""
        with suppress(StorageError):  # the next start tries again
            kept = read_record(self._store, record.id)
            if kept is not None and not kept.over:
                write_record(self._store, record)

    def _start(self, url: str, name: str) -> None:
        ray.remote(Puller).options(
            name=_actor_name(name),
            namespace=NAMESPACE,
            lifetime="detached",  # or it would end with the gateway that began it
            max_restarts=-1,
            num_cpus=0,
        ).remote(url, name, self._store, self._make_sessions, self._settings)

    async def _known(self, stream: str) -> StreamRecord | None:
        if not re.fullmatch(SESSION_ID, stream):
            return None
        return await asyncio.to_thread(read_record, self._store, stream)

    async def _now(self, record: StreamRecord) -> StreamRecord:
        """As its process has it, which is newer than what is kept."""
        if record.over:
            return record
        actor = await asyncio.to_thread(_actor, record.id)
        if actor is None:
            # It ends itself once its end is kept.
            kept = await asyncio.to_thread(read_record, self._store, record.id) or record
            begins = kept.deaths < 0 and time.time() - kept.created < _BEGINS_S
            gone = "nothing pulls it any more: its cluster ended; start it again"
            return kept if kept.over or begins else _failed(kept, gone)
        with suppress(TimeoutError, RayError):
            told = await asyncio.wait_for(_answer(actor.record.remote()), _ANSWER_S)
            return record if told is None else StreamRecord.of(told)
        return record


def source_settings(settings: ApiSettings) -> SourceSettings:
    """What sources may be where clients may send what ``settings`` say."""
    return SourceSettings(
        allow_private=settings.allow_private_urls,
        s3_buckets=tuple(settings.s3_buckets),
        max_pixels=settings.max_pixels,
    )


def shown(record: StreamRecord) -> dict[str, Any]:
    """A stream as the API spells it, and what it keeps to itself: ``owner``, ``fps``."""
    return {
        "id": record.id,
        "object": "stream",
        "url": record.url,
        "session": record.session,
        "state": record.state,
        "error": record.error,
        "reconnect": record.reconnect,
        "frames": record.frames,
        "dropped": record.dropped,
        "seq": record.seq,
        "connections": record.connections,
        "created": int(record.created),
        "owner": record.owner,
        "fps": record.fps,
    }


def _failed(record: StreamRecord, error: str) -> StreamRecord:
    return replace(record, state="failed", error=error, ended_at=time.time())


def _actor_name(stream: str) -> str:
    return f"stream:{stream}"


def _actor(stream: str) -> Any | None:
    try:
        return ray.get_actor(_actor_name(stream), NAMESPACE)
    except ValueError:
        return None


async def _answer(reference: Awaitable[Any]) -> Any:
    return await reference


async def _until_done(work: Callable[[], Any]) -> Any:
    """``work`` in a thread, again until the store takes it."""
    while True:
        try:
            return await asyncio.to_thread(work)
        except StorageError:
            await asyncio.sleep(_KEEP_AGAIN_S)
