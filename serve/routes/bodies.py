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

from serve.live.items import Frame, SessionError
from serve.routes.context import ApiSettings
from serve.routes.errors import error_response
from serve.routes.media import MediaError, decode_image, decode_piece, kind_of

#: Of one request.
MOST_FRAMES = 1000
#: Of a body that holds no media. A larger one would only keep the event loop parsing.
MOST_JSON_BYTES = 2**20
_WITH_MEDIA = ("/frames", "/files", "/chat/completions")


class BoundedBodies:
    """ASGI middleware: a request's body ends in 413 at the bound and is never held beyond it."""

    def __init__(self, app: ASGIApp, most_bytes: int) -> None:
        self._app, self._most_bytes = app, most_bytes

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
        seen = 0

        async def bounded() -> Message:
            nonlocal seen
            part = await receive()
            seen += len(part.get("body", b""))
            if seen > most:
                # FastAPI lets this class pass and takes any other for a body that is not JSON.
                raise HTTPException(413, message)
            return part

        await self._app(scope, bounded, send)


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
    async for chunk in request.stream():
        data += chunk
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
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 2**53):
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


async def decode(sent: Sent, side: int, fps: float, settings: ApiSettings) -> list[Frame]:
    """The frames that were sent, ``side`` high and wide; a piece's on the grid of ``fps``.

    Raises:
        MediaError: one of them cannot be decoded; its message says which.
    """
    return await asyncio.to_thread(_decode, sent, side, fps, settings)


def _decode(sent: Sent, side: int, fps: float, settings: ApiSettings) -> list[Frame]:
    frames = []
    for number, (data, time_s) in enumerate(zip(sent.media, sent.times, strict=True)):
        if len(sent.media) == 1 and kind_of(data) == "video":
            return _piece(data, time_s, side, fps, settings)
        try:
            frames.append(Frame(decode_image(data, side, settings), time_s))
        except MediaError as error:
            if len(sent.media) == 1:
                raise
            raise MediaError(error.code, f"frames[{number}]: {error.message}") from None
    return frames


def _piece(
    data: bytes, time_s: float | None, side: int, fps: float, settings: ApiSettings
) -> list[Frame]:
    found = decode_piece(data, side, fps, settings)
    if time_s is None:  # the grid goes on where the last frame was
        return [Frame(pixels) for _, pixels in found]
    return [Frame(pixels, time_s + after_s) for after_s, pixels in found]
