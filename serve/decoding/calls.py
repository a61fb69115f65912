"""What the gateway asks of decoding processes: pictures, pieces of video, videos at a uri."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np

from actors.objects import is_s3, normalize_uri, open_object, stat_object
from actors.ranged import RangedReader
from longreel.errors import StorageError
from serve.decoding.media import MediaError, Video, nothing_decoded
from serve.decoding.pool import CallError, Pool
from serve.decoding.process import Fetch
from serve.live.items import Pixels, SessionError
from serve.settings import ApiSettings

#: Calls that may wait for a process: of pictures, each of them quick, and of videos.
_MOST_PICTURES_WAITING, _MOST_VIDEOS_WAITING = 1024, 64
_FEWEST, _MOST = 2, 4
#: For one picture: the largest that is allowed takes a second or two.
_PICTURE_S = 10.0


@dataclass(frozen=True)
class Decoders:
    """The processes of this gateway. Live pictures never wait behind somebody's video."""

    pictures: Pool
    videos: Pool


def decoders(settings: ApiSettings) -> Decoders:
    """Those of this process for ``settings``; they are started when they are needed."""
    return _decoders(settings.decode_memory_bytes)


@cache
def _decoders(memory_bytes: int) -> Decoders:
    most = min(max(_FEWEST, os.cpu_count() or 1), _MOST)
    return Decoders(
        Pool(most, _MOST_PICTURES_WAITING, memory_bytes),
        Pool(most, _MOST_VIDEOS_WAITING, memory_bytes),
    )


async def decode_pictures(
    pictures: Sequence[bytes], side: int, settings: ApiSettings
) -> list[Pixels]:
    """Pictures as (side, side, 3) pixels each.

    Raises:
        MediaError: one cannot be decoded; of several the message says which.
        SessionError: ``overloaded`` or ``unavailable``.
    """
    limit_s = min(settings.decode_timeout_s, _PICTURE_S)
    call = {
        **_call("pictures", side, settings),
        "sizes": [len(each) for each in pictures],
        "limit_s": limit_s,
    }
    found: list[Pixels] = []

    def take(said: dict[str, Any], data: bytearray) -> None:
        found.extend(_pixels(data, said["pictures"], side))

    try:
        pool = decoders(settings).pictures
        await pool.call(call, list(pictures), take, limit_s)
    except CallError as error:
        if len(pictures) == 1:
            raise MediaError(error.code, error.message) from None
        number = len(found) if error.number is None else error.number
        raise MediaError(error.code, f"frames[{number}]: {error.message}") from None
    if len(found) != len(pictures):
        raise _too_little()
    return found


async def decode_video(
    data: bytes, side: int, fps: float, settings: ApiSettings
) -> list[tuple[float, Pixels]]:
    """An encoded piece's frames on the grid of ``fps``: (seconds since its first frame, pixels).

    Raises:
        MediaError: it is no video, is too long or too large, or nothing of it can be decoded.
        SessionError: ``overloaded`` or ``unavailable``.
    """
    call = {**_call("piece", side, settings), "fps": fps}
    found: list[tuple[float, Pixels]] = []

    def take(said: dict[str, Any], data: bytearray) -> None:
        found.extend(_timed(said, data, side))

    pool = decoders(settings).videos
    await pool.call(call, [data], take, settings.decode_timeout_s)
    return found


@dataclass(frozen=True)
class RemoteVideo:
    """A video that a decoding process looked into; it is within the limits.

    Attributes:
        size: of its bytes, where this process reads them for the others, which have no way to them.
    """

    video: Video
    size: int | None
    settings: ApiSettings

    @property
    def frames(self) -> int:
        """How many grid points it has."""
        return self.video.frames

    async def decode(self, side: int) -> AsyncIterator[list[tuple[int, Pixels]]]:
        """[(grid point, (side, side, 3) pixels), ...] of its healthy frames, stretch by stretch.

        Raises:
            MediaError: nothing of it can be decoded.
            SessionError: ``url_unreachable``: it could not be read to its end.
        """
        error, found = None, False
        for first, end in self.video.stretches(side):
            call = {
                **_call("stretch", side, self.settings),
                "video": asdict(self.video),
                "size": self.size,
                "first": first,
                "end": end,
            }
            parts: list[tuple[float, Pixels]] = []

            def take(
                said: dict[str, Any], data: bytearray, parts: list[tuple[float, Pixels]] = parts
            ) -> None:
                nonlocal error
                error = error or said["error"]
                parts.extend(_timed(said, data, side))

            etag = None if self.size is None else self.video.etag
            await _read_for(self.video.uri, self.size, etag, call, take, self.settings)
            if parts:
                found = True
                yield [(round(time_s * self.video.fps), pixels) for time_s, pixels in parts]
        if not found:
            raise nothing_decoded(error)


async def open_remote(uri: str, fps: float, settings: ApiSettings) -> RemoteVideo:
    """Looks into the video at ``uri``, a local file or an object in S3.

    Raises:
        MediaError: it is no video, or beyond the limits.
        SessionError: ``url_unreachable``, ``overloaded``, ``unavailable``, or ``invalid_value``
            for an impossible ``fps``.
    """
    uri, size, etag = normalize_uri(uri), None, None
    if is_s3(uri):
        size, etag = await asyncio.to_thread(_seen, uri)
    call = {**_call("open", 1, settings), "uri": uri, "fps": fps, "size": size}
    found: list[Video] = []

    def take(said: dict[str, Any], data: bytearray) -> None:
        found.append(_video(said, uri, etag, fps, settings.max_video_s))

    await _read_for(uri, size, etag, call, take, settings)
    if not found:
        raise _too_little()
    return RemoteVideo(found[0], size, settings)


def _too_little() -> MediaError:
    """Of a process that ended its answer before it was whole: something has taken it over."""
    return MediaError("media_error", "it cannot be decoded: pictures are missing")


def _call(op: str, side: int, settings: ApiSettings) -> dict[str, Any]:
    limits = {"max_pixels": settings.max_pixels, "max_video_s": settings.max_video_s}
    return {"op": op, "side": side, "settings": limits, "limit_s": settings.decode_timeout_s}


async def _read_for(
    uri: str,
    size: int | None,
    etag: str | None,
    call: dict[str, Any],
    take: Any,
    settings: ApiSettings,
) -> None:
    """A call about ``uri``, whose bytes are read here if ``size`` is given: credentials stay."""
    pool, limit_s = decoders(settings).videos, settings.decode_timeout_s
    if size is None:
        await pool.call(call, [], take, limit_s)
        return
    try:
        reader = await asyncio.to_thread(open_object, uri, etag)
    except StorageError as failure:
        raise SessionError("url_unreachable", f"the video cannot be read: {failure.kind}") from None
    with closing(reader):
        await pool.call(call, [], take, limit_s, _fetch(reader))


def _fetch(reader: RangedReader) -> Fetch:
    def fetch(start: int, length: int) -> bytes:
        reader.seek(start)
        return reader.read(length)

    return fetch


def _seen(uri: str) -> tuple[int, str]:
    try:
        found = stat_object(uri)
    except StorageError as failure:
        raise SessionError("url_unreachable", f"the video cannot be read: {failure.kind}") from None
    return found.size_bytes, found.etag


def _video(said: dict[str, Any], uri: str, etag: str | None, fps: float, most_s: float) -> Video:
    """As a process tells of it; where it lies and how it is sampled is not its to say.

    Raises:
        ValueError: it is beyond the limits, which the process had to keep.
    """
    told = (str(said["etag"]), int(said["origin_pts"]), float(said["duration_s"]))
    frames = int(said["frames"])
    if not (0 <= told[2] <= most_s and 0 <= frames <= most_s * fps + 1):
        raise ValueError("more than may be")
    return Video(uri, etag or told[0], told[1], told[2], fps, frames)


def _pixels(data: bytearray, count: int, side: int) -> Pixels:
    return np.frombuffer(data, np.uint8).reshape(count, side, side, 3)


def _timed(said: dict[str, Any], data: bytearray, side: int) -> list[tuple[float, Pixels]]:
    times = [float(time_s) for time_s in said["times_s"]]
    if not all(map(math.isfinite, times)):
        raise ValueError("a time that is none")
    return list(zip(times, _pixels(data, len(times), side), strict=True))
