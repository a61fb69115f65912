"""Opening a source of any kind, and the decoded pictures that come out of it."""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import av
from av.container import InputContainer
from av.stream import Discard, Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from actors.media import MEDIA_ERRORS
from actors.objects import open_object
from longreel.errors import StorageError
from serve.sources.addresses import SourceError, SourceSettings, check_bucket, place_of
from serve.sources.httpbody import HttpBody, open_body
from serve.sources.rtspguard import RtspGuard

#: FFmpeg reads what it is handed and opens nothing.
_NOTHING_ELSE = {"protocol_whitelist": "none"}
#: What a playlist names is opened by us; without ``tcp`` FFmpeg itself cannot. Its checks of how
#: files are called would refuse addresses with queries.
_PLAYLISTS = {
    "protocol_whitelist": "http,https",
    "http_persistent": "0",
    "http_multiple": "0",
    "allowed_extensions": "ALL",
    "extension_picky": "0",
}
_READ = 1
#: Addresses that a playlist may name until pictures come: of each of its variants, sound and
#: subtitles a list, a beginning and some segments.
_MOST_NAMED = 256
# Most that is read to know what a source is: of a live one it is seconds of delay and memory.
_PROBE = {"probesize": str(2**20), "analyzeduration": "2000000"}
#: Formats that stand for one picture after the other and have no times, or made-up ones.
_WITHOUT_TIMES = ("mpjpeg", "mjpeg", "image2pipe", "jpeg_pipe", "h264", "hevc", "m4v")
_BROKEN_PACKETS = 250
#: What FFmpeg says of sources that will not change.
_FINAL: dict[type[Exception], str] = {
    av.InvalidDataError: "this is no video",
    av.error.PermissionError: "this is a playlist, and what it names is not opened",
}
_STILLS = re.compile(r"_pipe$|^image2$|^tty$")


@dataclass(frozen=True)
class Opened:
    """An open source.

    Attributes:
        paced: it is a recording that comes as fast as it is read, with times of its own from 0;
            a live source comes when it comes.
        close: ends it, also while another thread waits for it.
        refused: why we ourselves cut it, if we did.
    """

    container: InputContainer
    stream: VideoStream
    paced: bool
    close: Callable[[], None]
    refused: Callable[[], str | None]

    def seek(self, time_s: float) -> None:
        """Go to a keyframe before ``time_s`` where the recording can; else it begins again."""
        with suppress(*MEDIA_ERRORS):
            start = (self.container.start_time or 0) / av.time_base
            self.container.seek(int((start + time_s) * av.time_base))

    def pictures(self) -> Iterator[tuple[VideoFrame, float | None]]:
        """Decoded pictures with their timestamps in seconds, None where the source has none.

        Raises:
            SourceError: it broke off, stayed silent for too long, or cannot be decoded.
        """
        timeless = self.container.format.name in _WITHOUT_TIMES
        start_s = (self.container.start_time or 0) / av.time_base if self.paced else 0.0
        try:
            for frame in self._frames():
                stamp = None if timeless or frame.time is None else frame.time - start_s
                yield frame, stamp
        except SourceError:
            raise
        except StorageError as failure:
            raise SourceError(str(failure)) from None
        except MEDIA_ERRORS as failure:
            raise SourceError(self.refused() or _why(failure)) from None

    def _frames(self) -> Iterator[VideoFrame]:
        broken = 0
        for packet in self.container.demux(self.stream):
            try:
                frames = packet.decode()
            except MEDIA_ERRORS:
                broken += 1
                if broken == _BROKEN_PACKETS:
                    raise SourceError("its pictures cannot be decoded") from None
                continue
            for frame in frames:
                # Until its first keyframe a source that was joined midway shows grey.
                if not frame.is_corrupt:
                    broken = 0
                    yield frame


def open_source(url: str, settings: SourceSettings) -> Opened:
    """Open ``rtsp``, ``rtsps``, ``http``, ``https`` or ``s3``.

    Raises:
        SourceError: it is not allowed, cannot be reached, or shows no pictures.
    """
    if url.startswith("s3://"):
        check_bucket(url, settings)
        try:
            reader = open_object(url)
        except StorageError as failure:
            raise SourceError(str(failure), final=failure.kind == "UnsupportedUri") from None
        return _opened(reader, _NOTHING_ELSE, settings, reader.close)
    place = place_of(url, settings)
    if place.scheme in ("http", "https"):
        web = _Web(url, settings)
        opened = _opened(web.first, _PLAYLISTS, settings, web.close, io_open=web.open)
        web.known = True
        return opened
    guard = RtspGuard(place, settings)
    options = {
        "protocol_whitelist": "tcp,rtp",
        "rtsp_transport": "tcp",
        "timeout": str(int(settings.read_s * 1e6)),
    }
    return _opened(guard.url, options, settings, guard.close, lambda: guard.refused)


class _Web:
    """An HTTP source, and what it names itself if it is a playlist: opened by us, checked alike.

    Args:
        url: of the source.
    """

    def __init__(self, url: str, settings: SourceSettings) -> None:
        self._settings = settings
        self._bodies: weakref.WeakSet[Any] = weakref.WeakSet()
        self._named = 0
        #: FFmpeg knows what it is; a live playlist names without an end.
        self.known = False
        self._closed = False
        self.first = open_body(url, settings)
        # What a playlist names is relative to this.
        self.first.name = self.first.url
        self._bodies.add(self.first)

    def open(self, url: str, flags: int, options: dict[str, str]) -> Any:
        """FFmpeg's way to a second address, or to a part of what is there.

        Raises:
            SourceError: it may not be opened, or cannot.
        """
        self._named += 1
        if self._closed or flags != _READ or not url.startswith(("http://", "https://")):
            raise SourceError("it names what is no web address", final=True)
        if self._named > _MOST_NAMED and not self.known:
            raise SourceError("it names too much", final=True)
        body = _named_body(url, options, self._settings)
        self._bodies.add(body)
        return body

    def close(self) -> None:
        """Let go of everything, whoever reads from it."""
        self._closed = True
        for body in list(self._bodies):
            body.close()


def _named_body(url: str, options: dict[str, str], settings: SourceSettings) -> Any:
    """What a playlist names: many segments may be parts of one file, which is said here alone."""
    start, end = int(options.get("offset", 0)), int(options.get("end_offset", 0))
    return HttpBody(url, settings, start, end) if end else open_body(url, settings)


def _opened(
    file: Any,
    options: dict[str, str],
    settings: SourceSettings,
    close: Callable[[], None],
    refused: Callable[[], str | None] = lambda: None,
    io_open: Callable[[str, int, dict[str, str]], Any] | None = None,
) -> Opened:
    limits = {"max_pixels": str(settings.max_pixels), "threads": "1"}
    try:
        container = av.open(
            file,
            "r",
            container_options={**_PROBE, **options},
            options=limits,
            # Bodies have a limit of their own: in a container of ours this is for playlists alone.
            timeout=(settings.open_s, max(settings.read_s, settings.segment_s if io_open else 0)),
            metadata_errors="replace",
            io_open=io_open,
        )
        stream = _pictures_of(container)
    except SourceError:
        close()
        raise
    except StorageError as failure:
        close()
        raise SourceError(str(failure)) from None
    except MEDIA_ERRORS as failure:
        close()
        final = _FINAL.get(type(failure))
        raise SourceError(refused() or final or _why(failure), final=bool(final)) from None
    return Opened(container, stream, _is_recording(container, file), close, refused)


def _is_recording(container: InputContainer, file: Any) -> bool:
    """A recording has an end; what is live has none that could be known.

    A live FLV says in its header that it lasts 0 seconds. So does a recording of one that was
    written as it came, but its server knows its size.
    """
    if container.duration is None or container.format.name == "sdp":
        return False
    return container.duration > 0 or not getattr(file, "endless", False)


def _pictures_of(container: InputContainer) -> VideoStream:
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams or _STILLS.search(container.format.name):
        raise SourceError("it shows no video", final=True)
    stream = streams[0]
    context = stream.codec_context
    if cast(Any, context) is None:
        raise SourceError("its video codec is unknown", final=True)
    context.thread_count = 1
    context.thread_type = "NONE"
    # Of a playlist every variant would be fetched for as long as it is followed.
    for other in container.streams:
        if other is not stream:
            other.discard = Discard.all
    return stream


def _why(failure: BaseException) -> str:
    """FFmpeg's reason without the address, which its own messages end with."""
    if isinstance(failure, av.ExitError):
        return "no data came for too long"
    if isinstance(failure, av.FFmpegError):
        return str(failure.strerror or type(failure).__name__)
    return type(failure).__name__
