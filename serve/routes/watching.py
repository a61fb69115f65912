"""A chat about pictures and videos, held in a session of its own."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction

from actors.grid import exact_fps
from actors.objects import open_object, read_bytes, stat_object
from longreel.errors import StorageError
from serve.decoding.calls import RemoteVideo, decode_pictures, open_remote
from serve.decoding.media import MediaError, kind_of
from serve.live.items import (
    Frame,
    Pixels,
    Question,
    SessionError,
    SessionEvent,
    SessionOptions,
)
from serve.routes.completions import DEFAULT_TOKENS, Source, Turn, asks_for_summary
from serve.routes.context import ApiSettings, Context
from serve.routes.fetching import fetched, is_temporary

#: Frames that are given in one call.
PIECE = 64
# Frames that may be given and not yet seen; what is decoded meanwhile comes on top.
_MOST_WAITING = 64
_WAIT_S = 10.0
# How often the replica hears of a session that waits for what is decoded: idle ones leave it.
_IN_USE_S = 1.0
# Between calls for events while frames are seen: one call tells of several.
_PAUSE_S = 0.03
_HEAD_BYTES = 1024


@dataclass(frozen=True)
class Shown:
    """A turn whose pictures and videos can be read, in order."""

    media: list[Pixels | RemoteVideo]
    text: str


@dataclass(frozen=True)
class Finished:
    """How an answer ended.

    Attributes:
        text: all of it.
        finish_reason: ``stop`` or ``length``.
        tokens: of the answer.
        frames: that the model took in.
        asked: the texts that were put to the model.
    """

    text: str
    finish_reason: str
    tokens: int
    frames: int
    asked: list[str]


@asynccontextmanager
async def shown(turns: Sequence[Turn], context: Context) -> AsyncIterator[list[Shown]]:
    """Fetches what the turns name and looks into it; temporary files last as the context does.

    Raises:
        SessionError: something cannot be had, is no picture or video, or is beyond the limits. Its
            message says where in the request that stands.
    """
    async with AsyncExitStack() as stack:
        found, frames, size = [], 0, 0
        most = context.settings.max_video_s * context.model.fps
        for turn in turns:
            media: list[Pixels | RemoteVideo] = []
            for source in turn.sources:
                try:
                    async with AsyncExitStack() as own:
                        uri = await own.enter_async_context(fetched(source.url, context))
                        medium = await _opened(uri, source, context)
                        if isinstance(medium, RemoteVideo):
                            # Of a picture the pixels are there.
                            size += _temporary_bytes(uri)
                            stack.push_async_exit(own.pop_all())
                    if size > context.settings.max_upload_bytes:
                        raise MediaError(
                            "media_too_large",
                            f"more than {context.settings.max_upload_bytes} bytes of videos in one "
                            "chat",
                        )
                except SessionError as error:
                    raise type(error)(error.code, f"{source.place}: {error.message}") from None
                media.append(medium)
                frames += medium.frames if isinstance(medium, RemoteVideo) else 1
                if frames > most:
                    raise MediaError(
                        "media_too_large", f"more than {most:g} frames in one chat ({source.place})"
                    )
            found.append(Shown(media, turn.text))
        yield found


def _temporary_bytes(uri: str) -> int:
    """What a medium takes here while the chat lasts; none of what lies elsewhere anyway."""
    return os.path.getsize(uri) if is_temporary(uri) else 0


async def _opened(uri: str, source: Source, context: Context) -> Pixels | RemoteVideo:
    model, settings = context.model, context.settings
    data = await asyncio.to_thread(_picture, uri, source, settings)
    if data is None:
        return await open_remote(uri, model.fps, settings)
    (pixels,) = await decode_pictures([data], model.side, settings)
    return pixels


def _picture(uri: str, source: Source, settings: ApiSettings) -> bytes | None:
    """The bytes of a picture; None where it is a video."""
    try:
        with open_object(uri) as reader:
            kind = kind_of(reader.read(_HEAD_BYTES))
        if source.kind is not None and kind != source.kind:
            what = "picture (JPEG, PNG, WebP, GIF)" if source.kind == "image" else "video"
            raise MediaError("unsupported_media_type", f"this is no {what}")
        if kind == "video":
            return None
        if stat_object(uri).size_bytes > settings.max_upload_bytes:
            raise MediaError(
                "media_too_large", f"the picture has more than {settings.max_upload_bytes} bytes"
            )
        return read_bytes(uri)
    except StorageError as error:
        raise SessionError("url_unreachable", f"this cannot be read: {error.kind}") from None


async def converse(
    turns: Sequence[Shown], system: str, most_tokens: int, context: Context
) -> AsyncIterator[str | Finished]:
    """The answer to the last turn, piece by piece, then how it ended.

    Frames and questions go into one session in order, and questions of earlier turns are asked
    again: answers are greedy, so they come as they came before. An empty string says that frames
    begin to be taken in. The session is closed however this ends.

    Raises:
        SessionError: nothing of a video can be decoded, a frame could not be taken in, or the
            session cannot go on.
    """
    options = SessionOptions(
        instruction=system or None,
        memory="full",
        durable=False,
        # Only its answers are wanted.
        asked=False,
        frames=sum(m.frames if isinstance(m, RemoteVideo) else 1 for m in turns[0].media),
    )
    # Named here, so that it is closed also where whoever asked leaves while it is opened.
    session = secrets.token_hex(8)
    try:
        await context.sessions.open(options, session)
        watch = _Watch(context, session)
        for number, turn in enumerate(turns):
            async for _ in watch.give(turn.media):
                yield ""
            is_last = number == len(turns) - 1
            if context.model.digest and asks_for_summary(turn.text, context.model.summary_request):
                if is_last:
                    yield await watch.digest(most_tokens)
                continue
            wants_summary = turn.media or is_last
            text = turn.text.strip() or (context.model.summary_request if wants_summary else "")
            if not text:
                continue
            # What was answered before came under a bound of its own, which nobody has kept.
            most = most_tokens if is_last else max(most_tokens, DEFAULT_TOKENS)
            async for said in watch.ask(text, most):
                if is_last:
                    yield said
    finally:
        # Already closed, or lost with its replica: then nothing is left to close.
        with suppress(SessionError):
            await context.sessions.close(session)


class _Watch:
    """One session while frames go in and events come out, in turns."""

    def __init__(self, context: Context, session: str) -> None:
        self.session = session
        self._sessions, self._context = context.sessions, context
        self._rate = exact_fps(context.model.fps)
        self._next = 0  # index on the session's grid, where the next medium begins
        self._after = 0
        self._given = self._ended = 0  # frames, and those that nothing more is said about
        self._narrations: list[str] = []
        self._asked: list[str] = []

    async def give(self, media: Sequence[Pixels | RemoteVideo]) -> AsyncIterator[None]:
        """Gives all frames of ``media``, one after another on one clock; says so piece by piece."""
        pieces, start = _pieces(media, self._context.model.side), self._next
        decoding = asyncio.create_task(_next(pieces))
        try:
            while (piece := await self._decoded(decoding)) is not None:
                # The next one is decoded while the model sees this one.
                decoding = asyncio.create_task(_next(pieces))
                begins, frames = piece
                if begins:
                    start = self._next
                await self._give([(start + index, pixels) for index, pixels in frames])
                yield
        finally:
            decoding.cancel()

    async def _decoded(self, decoding: asyncio.Task[_Piece | None]) -> _Piece | None:
        """The next piece; the session is in use meanwhile."""
        while not decoding.done():
            done, _ = await asyncio.wait((decoding,), timeout=_IN_USE_S)
            if not done:
                await self._events(0.0)
        return decoding.result()

    async def _give(self, frames: list[tuple[int, Pixels]]) -> None:
        while frames:
            receipts = await self._sessions.give(
                self.session,
                [Frame(pixels, float(Fraction(index) / self._rate)) for index, pixels in frames],
            )
            for receipt, (index, _) in zip(receipts, frames, strict=True):
                if receipt.outcome == "accepted":
                    self._given, self._next = self._given + 1, index + 1
            lag = [r.outcome == "dropped" and r.reason == "lag" for r in receipts]
            frames = [frame for frame, late in zip(frames, lag, strict=True) if late]
            await self._seen_but(0 if frames else _MOST_WAITING)
            if frames and not any(r.outcome == "accepted" for r in receipts):
                await asyncio.sleep(0.1)

    async def ask(self, text: str, most_tokens: int) -> AsyncIterator[str | Finished]:
        """The answer, piece by piece, then how it ended."""
        self._asked.append(text)
        (receipt,) = await self._sessions.give(self.session, [Question(text, most_tokens)])
        told = ""
        while True:
            for event in await self._events():
                data = event.data
                if data.get("response") != receipt.response:
                    continue
                if event.type == "response.delta":
                    told += data["delta"]
                    yield data["delta"]
                elif event.type == "response.done":
                    if data["status"] not in ("completed", "length"):
                        raise SessionError("unavailable", f"the answer was {data['status']}")
                    if data["text"].startswith(told) and data["text"] != told:
                        yield data["text"][len(told) :]
                    reason = "length" if data["status"] == "length" else "stop"
                    yield Finished(
                        data["text"], reason, data["output_tokens"], self._given, self._asked
                    )
                    return

    async def digest(self, most_tokens: int) -> Finished:
        """What was narrated, summed up by rule, once all frames are seen."""
        await self._seen_but(0)
        # The replica has the rule and the tokens.
        lines = "\n".join(self._narrations)
        answered = await self._context.answers.chat("", lines, most_tokens)
        return Finished(
            answered.text,
            answered.finish_reason,
            answered.completion_tokens,
            self._given,
            self._asked,
        )

    async def _seen_but(self, waiting: int) -> None:
        """Until nothing more is said about the frames given, all but the last ``waiting``."""
        while self._given - self._ended > waiting:
            await self._events()
            await asyncio.sleep(_PAUSE_S)

    async def _events(self, wait_s: float = _WAIT_S) -> list[SessionEvent]:
        """The next events, once there are any or some time has passed."""
        events = await self._sessions.events(self.session, self._after, wait_s)
        for event in events:
            self._after = event.number
            if event.type == "frame.seen" and not event.data["speaks"]:
                self._ended = event.data["frame"] + 1
            elif event.type == "narration":
                self._ended = event.data["frame"] + 1
                self._narrations.append(event.data["text"])
            elif event.type == "error":
                # Of a frame too: an answer about the others would pass for one about all.
                raise SessionError(event.data["code"], event.data["message"])
            elif event.type == "session.closed":
                raise SessionError("unavailable", "the session ended before its answer did")
        return events


#: Whether a medium begins, and [(index on its own grid, pixels), ...].
_Piece = tuple[bool, list[tuple[int, Pixels]]]


async def _pieces(media: Sequence[Pixels | RemoteVideo], side: int) -> AsyncIterator[_Piece]:
    """Of one medium after the other."""
    for medium in media:
        if not isinstance(medium, RemoteVideo):
            yield True, [(0, medium)]
            continue
        begins = True
        async for frames in medium.decode(side):
            for first in range(0, len(frames), PIECE):
                yield begins, frames[first : first + PIECE]
                begins = False


async def _next(pieces: AsyncIterator[_Piece]) -> _Piece | None:
    return await anext(pieces, None)
