"""Bodies of requests: bounded while they are read, and frames taken out of them."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import HTTPException, Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.decoding.calls import decode_pictures, decode_video
from serve.decoding.media import kind_of
from serve.keys.serving import check_frames, take_frames
from serve.live.items import Frame, SessionError
from serve.routes.context import ApiSettings
from serve.routes.errors import error_response
from serve.routes.measured import measured_decoding

#: Of one request.
MOST_FRAMES = 1000
#: Of a body that holds no media. A larger one would only keep the event loop parsing.
MOST_JSON_BYTES = 2**20
#: Values in a body of JSON, about. One of media is long by its strings; of as many lists as bytes
#: it would fill the memory a hundred times over.
MOST_JSON_VALUES = 100_000
#: Seconds in which some of a body must come; and bodies that are held at a time, in as many as
#: the largest has bytes.
SILENCE_S = 30.0
_MOST_AT_ONCE = 4
_WITH_MEDIA = ("/frames", "/files", "/chat/completions")
_NO_JSON = ("/frames", "/files")
_BEFORE_VALUES = (b",", b"[", b"{")


class BoundedBodies:
    """ASGI middleware: a request's body ends in 413 at the bound and is never held beyond it.

    One that stops coming ends in 408, and all bodies together are bounded too: those beyond end
    in 429.
    """

    def __init__(self, app: ASGIApp, most_bytes: int) -> None:
        self._app, self._most_bytes = app, most_bytes
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = self._most_bytes
        if not scope["path"].endswith(_WITH_MEDIA):
            most = min(most, MOST_JSON_BYTES)
        message = f"the body is larger than {most} bytes"
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > most:
            await error_response(413, message, "media_too_large")(scope, receive, send)
            return
        seen, values, whole = 0, 0, False
        as_json = not scope["path"].endswith(_NO_JSON)

        async def bounded() -> Message:
            nonlocal seen, values, whole
            if whole:
                return await receive()
            # FastAPI lets this class pass and takes any other for a body that is not JSON.
            try:
                async with asyncio.timeout(SILENCE_S):
                    part = await receive()
            except TimeoutError:
                raise HTTPException(408, "the body stopped coming") from None
            whole = not part.get("more_body")
            body = part.get("body", b"")
            size = len(body)
            seen += size
            self._held += size
            if seen > most:
                raise HTTPException(413, message)
            values += sum(map(body.count, _BEFORE_VALUES)) if as_json else 0
            if values > MOST_JSON_VALUES:
                raise HTTPException(413, f"the body has more than {MOST_JSON_VALUES} values")
            if self._held > _MOST_AT_ONCE * self._most_bytes:
                raise HTTPException(429, "too much is being sent at once")
            return part

        try:
            await self._app(scope, bounded, send)
        finally:
            self._held -= seen


@dataclass(frozen=True)
class Sent:
    """Frames as they were sent.

    Attributes:
        media: encoded pictures, or one encoded piece of video.
        times: seconds of each picture, or of the piece's first frame; None for the next.
        seq: sequence number of the first frame.
    """

    media: Sequence[bytes]
    times: Sequence[float | None]
    seq: int | None


async def read_frames(request: Request, seq: int | None, time_s: float | None) -> Sent:
    """What a request to ``/frames`` holds.

    Args:
        seq, time_s: of its query; form fields go before.

    Raises:
        SessionError: it holds no frames, or its fields cannot be used.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _read_form(request, seq, time_s)
    if not kind.startswith(("image/", "video/")) and kind != "application/octet-stream":
        raise SessionError(
            "unsupported_media_type",
            f"frames are multipart/form-data, image/* or video/*, not {kind or 'of no type'}",
        )
    data = bytearray()
    async for part in request.stream():
        data += part
    if not data:
        raise SessionError("invalid_frame", "the body is empty")
    return Sent([bytes(data)], [time_s], seq)


async def _read_form(request: Request, seq: int | None, time_s: float | None) -> Sent:
    parser = MultiPartParser(request.headers, request.stream(), max_files=MOST_FRAMES)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise SessionError("invalid_value", f"the form cannot be read: {error.message}") from None
    except KeyError:
        raise SessionError("invalid_value", "the form cannot be read: no boundary") from None
    try:
        for name, value in form.multi_items():
            if name not in ("frames", "times", "seq"):
                raise SessionError("invalid_value", f"there is no field {name!r} of frames")
            if isinstance(value, UploadFile) != (name == "frames"):
                wanted = "files" if name == "frames" else "no file"
                raise SessionError("invalid_value", f"{name} must be {wanted}")
        media = [await f.read() for f in form.getlist("frames") if isinstance(f, UploadFile)]
    finally:
        await form.close()
    if not media:
        raise SessionError("invalid_frame", "the form holds no frames")
    if (given := form.get("seq")) is not None:
        seq = _seq(str(given))
    if (given := form.get("times")) is not None:
        return Sent(media, _times(str(given), len(media)), seq)
    return Sent(media, [time_s, *[None] * (len(media) - 1)], seq)


def _seq(text: str) -> int:
    # The length first: Python itself reads no number of thousands of digits.
    if not (text.isascii() and text.isdigit() and len(text) <= 16 and 0 < int(text) < 2**53):
        raise SessionError("invalid_value", f"seq must be a number from 1, not {text[:40]!r}")
    return int(text)


def _times(text: str, count: int) -> list[float | None]:
    try:
        times = json.loads(text)
    except (ValueError, RecursionError):
        times = None
    if not isinstance(times, list) or not all(t is None or is_time(t) for t in times):
        raise SessionError("invalid_value", "times must be a JSON list of seconds or null")
    if len(times) != count:
        raise SessionError("invalid_value", f"{len(times)} times for {count} frames")
    return times


def is_time(value: Any) -> bool:
    """Whether ``value`` can be the time of a frame, in seconds."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 0 <= value < 1e9 and math.isfinite(value)


@measured_decoding
async def decode(sent: Sent, side: int, fps: float, settings: ApiSettings) -> list[Frame]:
    """The frames that were sent, ``side`` high and wide; a piece's on the grid of ``fps``.

    Raises:
        MediaError: one of them cannot be decoded; its message says which.
        SessionError: ``overloaded``: too much waits to be decoded.
        QuotaError: they come faster than the client's key may push frames.
    """
    check_frames()
    frames = await _decoded(sent, side, fps, settings)
    take_frames(len(frames))
    return frames


async def _decoded(sent: Sent, side: int, fps: float, settings: ApiSettings) -> list[Frame]:
    if len(sent.media) == 1 and kind_of(sent.media[0]) == "video":
        (time_s,) = sent.times
        found = await decode_video(sent.media[0], side, fps, settings)
        if time_s is None:  # the grid goes on where the last frame was
            return [Frame(pixels) for _, pixels in found]
        return [Frame(pixels, time_s + after_s) for after_s, pixels in found]
    pictures = await decode_pictures(sent.media, side, settings)
    return [Frame(*each) for each in zip(pictures, sent.times, strict=True)]
