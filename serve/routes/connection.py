"""One client's connection to a session: moves messages between socket, protocol and session.

Four tasks share a connection and end together: one hears the client, one hands in what it sent,
one listens to the session, one writes. What waits between them is bounded, so a client that does
not read stops all of them, and is let go after a while.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from fastapi import WebSocket, WebSocketDisconnect

from serve.keys.serving import take_upload
from serve.live.items import Frame, Question, SessionError, SessionView
from serve.routes.bodies import decode
from serve.routes.context import Context
from serve.routes.conversation import (
    Cancel,
    Close,
    Conversation,
    Give,
    Item,
    Order,
    Put,
    Reply,
    Said,
    accepted,
    refused,
    runs,
)
from serve.routes.errors import status_of
from serve.routes.schemas import SessionObject
from serve.routes.sse import events_until_closed

_log = logging.getLogger("longreel.api")

#: Close code of a client that takes nothing off the socket; others are 4000 + the HTTP status.
SLOW_READER = 4408
#: Seconds for which one message may wait for the client to take it.
STALL_S = 20.0
#: Seconds for which a closing connection is waited for.
_CLOSE_S = 5.0
#: Messages, and bytes of them, that wait to be handed in; messages that wait to be written.
_MOST_HEARD, _MOST_HEARD_BYTES, _MOST_UNSENT = 32, 64 * 2**20, 256
#: Pings, cancellations and what is no message, a second, after so many at once.
_ANSWERS_A_S, _BURST = 100, 200
#: Pixels, in bytes, from which on decoded frames are handed in before more is decoded.
_MOST_DECODED_BYTES = 32 * 2**20


@dataclass(frozen=True)
class End:
    """Comes last in what is written."""

    code: int
    reason: str


class _EndedError(Exception):
    """The connection is over; with ``end`` None the client has left."""

    def __init__(self, end: End | None) -> None:
        super().__init__()
        self.end = end


class _Heard(asyncio.Queue[Order]):
    """What the client sent, bounded in bytes too."""

    _bytes = 0

    def full(self) -> bool:
        return self.qsize() >= _MOST_HEARD or self._bytes >= _MOST_HEARD_BYTES

    def _put(self, item: Order) -> None:
        self._bytes += _size(item)
        super()._put(item)

    def _get(self) -> Order:
        item: Order = super()._get()
        self._bytes -= _size(item)
        return item


def _size(order: Order) -> int:
    return len(order.sent.media[0]) if isinstance(order, Give) else 0


def _pixel_bytes(items: Sequence[Item]) -> int:
    return sum(item.given.pixels.nbytes for item in items if isinstance(item.given, Frame))


class Connection:
    """One client at one session, after the socket was accepted."""

    def __init__(
        self,
        socket: WebSocket,
        context: Context,
        view: SessionView,
        after: int,
        frames: bool,
    ) -> None:
        self._socket, self._context, self._view = socket, context, view
        self._after = after
        self._talk = Conversation(frames, context.settings.max_upload_bytes)
        self._heard = _Heard()
        self._unsent: asyncio.Queue[Said | End] = asyncio.Queue(_MOST_UNSENT)
        self._paced_until = 0.0

    @property
    def session(self) -> str:
        """The session's id."""
        return self._view.id

    async def run(self) -> None:
        """Serve the client until it leaves or the session is closed."""
        shown = SessionObject.of(self._view, self._context.model.fps).model_dump(mode="json")
        await self._say({"type": "session.created", "session": shown})
        end: End | None = None
        try:
            async with asyncio.TaskGroup() as group:
                for part in (self._hear, self._hand_in, self._listen, self._write):
                    group.create_task(part())
        except* _EndedError as ended:
            # Of parts that end at once, any that knows why goes before one that met a closed door.
            ends = [e.end for e in ended.exceptions if isinstance(e, _EndedError) and e.end]
            end = ends[0] if ends else None
        except* Exception as failed:
            _log.error("session %s: a connection failed", self._view.id, exc_info=failed)
            end = End(1011, "the service failed")
        if end:
            await close(self._socket, end)

    def goaway(self, reason: str) -> None:
        """See ``Connections``; one whose queue is full is about to end anyway."""
        if not self._unsent.full():
            self._unsent.put_nowait({"type": "session.goaway", "reason": reason})

    async def _hear(self) -> None:
        while True:
            try:
                message = await self._socket.receive()
            except RuntimeError:  # what starlette makes of one that was closed meanwhile
                raise _EndedError(None) from None
            if message["type"] == "websocket.disconnect":
                raise _EndedError(None)
            text, data = message.get("text"), message.get("bytes")
            sent = text if text is not None else data or b""
            order = self._within_quota(self._talk.hear(sent), len(sent))
            match order:
                case None:
                    pass
                case Cancel(response):  # not behind the frames that it is to interrupt
                    await self._pace()
                    await self._cancel(response)
                case Reply(said) if said["type"] == "pong":
                    await self._pace()
                    await self._say(said)
                case _:
                    await self._heard.put(order)

    def _within_quota(self, order: Order | None, size: int) -> Order | None:
        """``order``, or what is said of one that is more than the client's key may send."""
        try:
            if isinstance(order, Give | Put):
                take_upload(size)
        except SessionError as error:
            if isinstance(order, Put):
                return Reply(refused(error, order.seq))
            assert isinstance(order, Give)
            return Reply(self._talk.not_taken(error, order.sent.seq))
        return order

    async def _pace(self) -> None:
        """Wait where a client asks so often for answers that cost it nothing."""
        now = time.monotonic()
        self._paced_until = max(self._paced_until, now - _BURST / _ANSWERS_A_S) + 1 / _ANSWERS_A_S
        if self._paced_until > now:
            await asyncio.sleep(self._paced_until - now)

    async def _hand_in(self) -> None:
        while True:
            orders = [await self._heard.get()]
            while not self._heard.empty():
                orders.append(self._heard.get_nowait())
            items: list[Item] = []
            for order in orders:
                if isinstance(order, Give):
                    items += await self._decode(order)
                    if _pixel_bytes(items) >= _MOST_DECODED_BYTES:
                        await self._give(items)
                        items = []
                    continue
                await self._give(items)
                items = []
                match order:
                    case Put():
                        await self._ask(order.question, order.seq)
                    case Close():
                        await self._close_session()
                    case Reply(said):
                        await self._pace()
                        await self._say(said)
            await self._give(items)

    async def _decode(self, order: Give) -> list[Item]:
        model, seq = self._context.model, order.sent.seq
        fps = self._view.options.fps or model.fps
        try:
            frames = await decode(order.sent, model.side, fps, self._context.settings)
        except SessionError as error:
            return [Item(error, seq)]
        if seq is None:
            return [Item(frame, None) for frame in frames]
        return [Item(frame, number) for number, frame in enumerate(frames, seq)]

    async def _give(self, items: Sequence[Item]) -> None:
        """Hand frames in, many to a call, because each call waits for the durable log."""
        for run in runs(items):
            frames = [item.given for item in run if isinstance(item.given, Frame)]
            if not frames:
                for item in run:
                    if isinstance(item.given, SessionError):
                        await self._say(self._talk.not_taken(item.given, item.seq))
                continue
            try:
                receipts = await self._context.sessions.give(self._view.id, frames, run[0].seq)
            except SessionError as error:
                if len(run) > 1 and error.code in ("invalid_frame", "invalid_value"):
                    for item in run:  # none was taken in; find the one to blame
                        await self._give([item])
                else:
                    for number, item in enumerate(run):
                        seq = None if run[0].seq is None else run[0].seq + number
                        await self._say(refused(error, item.seq or seq))
                continue
            for frame, receipt in zip(frames, receipts, strict=True):
                await self._say(self._talk.answered(frame, receipt))

    async def _ask(self, question: Question, seq: int | None) -> None:
        try:
            (receipt,) = await self._context.sessions.give(self._view.id, [question], seq)
        except SessionError as error:
            await self._say(refused(error, seq))
            return
        if receipt.response is None:
            taken = SessionError("invalid_value", f"number {receipt.seq} was given to a frame")
            await self._say(refused(taken, receipt.seq))
        else:
            await self._say(accepted(receipt))

    async def _cancel(self, response: str | None) -> None:
        try:
            ended = await self._context.sessions.cancel(self._view.id, response)
        except SessionError as error:
            await self._say(refused(error))
        else:
            await self._say({"type": "response.cancelled", "cancelled": ended})

    async def _close_session(self) -> None:
        try:
            await self._context.sessions.close(self._view.id)
        except SessionError as error:
            await self._say(refused(error))

    async def _listen(self) -> None:
        end = End(1000, "the session is closed")
        try:
            async for event in events_until_closed(
                self._context.sessions, self._view.id, self._after
            ):
                said = self._talk.told(event) if event else None
                if said:
                    await self._say(said)
        except SessionError as error:
            await self._say(refused(error))
            end = end_of(error)
        await self._say(self._talk.stats())
        await self._unsent.put(end)

    async def _say(self, said: Said) -> None:
        await self._unsent.put(said)

    async def _write(self) -> None:
        while True:
            said = await self._unsent.get()
            if isinstance(said, End):
                raise _EndedError(said)
            try:
                async with asyncio.timeout(STALL_S):
                    await self._socket.send_text(json.dumps(said))
            except TimeoutError:
                reason = "the client does not read; come back with after"
                raise _EndedError(End(SLOW_READER, reason)) from None
            except (WebSocketDisconnect, RuntimeError):
                raise _EndedError(None) from None


async def close(socket: WebSocket, end: End, last: Said | None = None) -> None:
    """Say a last thing and goodbye to one who may have left, or may read neither."""
    with suppress(TimeoutError, WebSocketDisconnect, RuntimeError):
        async with asyncio.timeout(_CLOSE_S):
            if last is not None:
                await socket.send_text(json.dumps(last))
            await socket.close(end.code, end.reason)


def end_of(error: SessionError) -> End:
    """How a connection ends that the error ends."""
    return End(4000 + status_of(error), error.code)
