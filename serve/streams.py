"""Streams as the API knows them: a process that pulls each, and what is kept of them."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Awaitable, Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import RayError

from actors.objects import printable_uri
from actors.statestore import SESSION_ID
from longreel.errors import StorageError
from serve.addresses import check_outside
from serve.calls import Sessions
from serve.live.items import SessionError, SessionOptions, SessionView
from serve.pulling import MakeSessions, find_puller, start_puller
from serve.routes.context import ApiSettings, ModelInfo
from serve.sources.addresses import SourceError, SourceSettings, check_bucket, place_of
from serve.sources.records import (
    StreamRecord,
    delete_record,
    read_record,
    read_records,
    write_record,
)

#: Streams at a time: each is a process of some 200 MB and decodes on a core when it must.
MOST_STREAMS = 32
_ANSWER_S = 1.0
#: So long a stream may be on its way from its record to its process.
_BEGINS_S = 120.0


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
        opening = asyncio.create_task(self._sessions.open(options, name))
        try:
            session = await asyncio.shield(opening)
        except asyncio.CancelledError:
            await self._undone(self._close(opening))
            raise
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
            await self._undone(self._undo(record, begun))
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
        actor = await asyncio.to_thread(find_puller, stream)
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

    async def _undone(self, work: Coroutine[Any, Any, None]) -> None:
        """``work``, to its end also where whoever waits here is cancelled once more."""
        undoing = asyncio.create_task(work)
        self._undoing.add(undoing)
        undoing.add_done_callback(self._undoing.discard)
        await asyncio.shield(undoing)

    async def _close(self, opening: asyncio.Task[SessionView]) -> None:
        """A session that may be there in a moment; one that is refused is not ours to close."""
        with suppress(Exception):  # nobody hears it
            await self._sessions.close((await opening).id)

    async def _undo(self, record: StreamRecord, begun: asyncio.Task[None]) -> None:
        """Leave nothing of a stream that was not begun, or that nobody waits for any more."""
        with suppress(Exception):  # told by whoever wants this
            # Its threads cannot be stopped, and would write again what is deleted here.
            await begun
        with suppress(Exception):
            await self._sessions.close(record.session)
        with suppress(RayError):
            if (actor := await asyncio.to_thread(find_puller, record.id)) is not None:
                await asyncio.to_thread(ray.kill, actor, no_restart=True)
        with suppress(StorageError):
            await asyncio.to_thread(delete_record, self._store, record.id)

    def _keep_failed(self, record: StreamRecord) -> None:
        """So that it is forgotten in time; whoever has ended it meanwhile has the last word."""
        with suppress(StorageError):  # the next start tries again
            kept = read_record(self._store, record.id)
            if kept is not None and not kept.over:
                write_record(self._store, record)

    def _start(self, url: str, stream: str) -> None:
        start_puller(url, stream, self._store, self._make_sessions, self._settings)

    async def _known(self, stream: str) -> StreamRecord | None:
        if not re.fullmatch(SESSION_ID, stream):
            return None
        return await asyncio.to_thread(read_record, self._store, stream)

    async def _now(self, record: StreamRecord) -> StreamRecord:
        """As its process has it, which is newer than what is kept."""
        if record.over:
            return record
        actor = await asyncio.to_thread(find_puller, record.id)
        if actor is None:
            # It ends itself once its end is kept.
            kept = await asyncio.to_thread(read_record, self._store, record.id) or record
            begins = kept.deaths < 0 and time.time() - kept.created < _BEGINS_S
            gone = "nothing pulls it any more: its cluster ended; start it again"
            return kept if kept.over or begins else kept.failed(gone)
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


async def _answer(reference: Awaitable[Any]) -> Any:
    return await reference
