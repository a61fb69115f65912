"""One opened video: its container, its stream of pictures, and packets from a keyframe on.

A seek is only a hint, since indexes hold decoding times, or nothing at all: what counts is the
first keyframe packet that comes out, and whether its picture is early enough.
"""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from typing import Any, BinaryIO, cast

import av
from av.container import InputContainer
from av.format import Flags
from av.packet import Packet
from av.stream import Discard, Disposition
from av.video.stream import VideoStream

from actors.granules import Granules
from actors.objects import RangedReader, open_object
from longreel.errors import StorageError, VideoError

#: What PyAV raises for broken media: FFmpeg's own errors, and its wrappers' on impossible values.
MEDIA_ERRORS = (av.FFmpegError, ValueError, ArithmeticError, LookupError)

# A playlist or reference file would otherwise make the demuxer open other files and addresses.
_OPTIONS = {"protocol_whitelist": "none"}
_NOT_PICTURES = Disposition.attached_pic | Disposition.timed_thumbnails
_STILLS = ("image2", "tty")
# Containers without an index land anywhere: so many packets on, an earlier seek is cheaper.
_PACKETS_TO_A_KEYFRAME = 1000
_FIRST_STEP_BACK_S = 2
_STEP_GROWTH = 4
_READ_ERRORS_IN_A_ROW = 16
_LIMITED_STREAMS = 16
# Packets that lie behind a picture in the file and are decoded before it comes out.
_DECODED_AFTER_S = Fraction(1, 4)
# A hole in a Matroska file is at least so long, and more bytes than headers between two blocks.
_GAP_S = Fraction(1, 4)
_BLOCK_HEADERS = 512

# Of the whole process: segment after segment of a video needs its index, and where one ends the
# next one begins.
_GRANULES = Granules(32 * 2**20)


#: Gives an object to read, each time from its beginning.
Opener = Callable[[], RangedReader]


class Mark:
    """What a packet carries to the frame that comes of it.

    PyAV finds it again by its address and forgets the address with the first of the packets that
    carry it: an object of its own for each packet, and never a number or a constant.
    """

    def __init__(self, packet: int = -1, *, lost: bool = False) -> None:
        #: Number of the packet.
        self.packet = packet
        #: Whether pictures before the packet are missing.
        self.lost = lost


@dataclass(frozen=True)
class Media:
    """An open container and the stream that carries its pictures."""

    file: RangedReader
    container: InputContainer
    stream: VideoStream
    time_base: Fraction

    @property
    def frame_s(self) -> Fraction:
        """The average time a frame stays on screen, for frames that do not say."""
        rate = self.stream.average_rate or self.stream.guessed_rate
        return 1 / rate if rate else Fraction(1, 25)


#: Pixels of a frame that a job decodes: an 8K picture has two thirds of it. A decoder holds up to
#: some twenty at once.
MOST_PIXELS = 50_000_000


@contextmanager
def open_media(
    uri: str,
    etag: str | None = None,
    max_pixels: int | None = None,
    opener: Opener | None = None,
) -> Iterator[Media]:
    """Opens the pictures of one object by ranged reads.

    Args:
        max_pixels: of one frame as stored. The decoder itself refuses larger ones before it makes
            room for them, also where they begin in the middle of the file.
        opener: of bytes that lie elsewhere; ``uri`` is only their name then.

    Raises:
        StorageError: the object cannot be read.
        VideoError: ``Empty``, ``NotAVideo``, ``NoVideoStream``, ``Truncated``, ``Damaged``, or
            ``TooLarge`` by its header.
    """
    limits = {} if max_pixels is None else {"max_pixels": str(max_pixels)}
    opened = opener() if opener else open_object(uri, etag, granules=_GRANULES)
    with closing(opened) as reader:
        if reader.size == 0:
            raise VideoError("Empty", "the file has no bytes")
        try:
            container = av.open(
                cast(BinaryIO, reader),
                "r",
                # Looking for a stream's size may take decoding it already.
                stream_options=cast(Any, [limits] * _LIMITED_STREAMS),  # typed as texts
                container_options=dict(_OPTIONS),
                metadata_errors="replace",
            )
        except StorageError:
            raise
        except MEDIA_ERRORS as error:
            raise _unopenable(reader, error) from None
        with container:
            stream = _stream_of_pictures(container)
            context = stream.codec_context
            if max_pixels is not None and context.width * context.height > max_pixels:
                raise VideoError(
                    "TooLarge",
                    f"frames have {context.width} x {context.height} pixels, "
                    f"more than {max_pixels} in all",
                )
            context.options = limits
            # Until a caller asks for more: a first frame is not worth a pool of threads.
            context.thread_count, context.thread_type = 1, "NONE"
            yield Media(reader, container, stream, Fraction(stream.time_base or 1))


def _stream_of_pictures(container: InputContainer) -> VideoStream:
    name = container.format.name
    if name.endswith("_pipe") or name in _STILLS:
        raise VideoError("NotAVideo", f"this is a still image or text ({name}), not a video")
    streams = [s for s in container.streams.video if not s.disposition & _NOT_PICTURES]
    if not streams:
        if not (container.streams.audio or container.streams.video):
            raise VideoError("NotAVideo", f"nothing to see or hear in this file ({name})")
        cover = " besides its cover art" if container.streams.video else ""
        raise VideoError("NoVideoStream", f"the file has sound but no video{cover}")
    stream = max(streams, key=lambda s: (s.disposition & Disposition.default, -s.index))
    # Typed as always there, but None when this build lacks the decoder.
    if cast(Any, stream.codec_context) is None:
        raise VideoError("Damaged", "its video codec is unknown, so no frame can be decoded")
    # Only pictures are ever wanted: others would cost reads where streams are not interleaved.
    # Matroska's are, and every byte must be accounted for to notice what is skipped.
    for other in container.streams:
        if other is not stream and not _is_matroska(container):
            other.discard = Discard.all
    return stream


def _is_matroska(container: InputContainer) -> bool:
    return container.format.name.startswith("matroska")


def packets(media: Media, *, every_stream: bool = False) -> Iterator[Packet[Any]]:
    """Packets with data from the current position to the end, past unreadable places.

    The first packet of the pictures after a stretch that the demuxer skipped in silence has a
    ``Mark`` that says so as its ``opaque``.
    """
    everything = every_stream or _is_matroska(media.container)
    streams: tuple[Any, ...] = () if everything else (media.stream,)
    gaps = _Gaps(media) if _is_matroska(media.container) else None
    errors = 0
    while True:
        try:
            for packet in media.container.demux(*streams):
                errors = 0
                if not packet.size:
                    continue
                if gaps is not None and gaps.before(packet):
                    packet.opaque = Mark(lost=True)
                if every_stream or packet.stream is media.stream:
                    yield packet
            return
        except MEDIA_ERRORS:
            errors += 1
            if errors == _READ_ERRORS_IN_A_ROW:
                return


class _Gaps:
    """Tells a skipped stretch of a damaged Matroska file from a picture that is shown for long.

    The demuxer jumps from damage to the next cluster without a word. Then both time and bytes are
    missing between two packets; a still picture lacks only time.
    """

    def __init__(self, media: Media) -> None:
        self._stream = media.stream
        self._frame = round(media.frame_s / media.time_base)
        self._longest = max(round(_GAP_S / media.time_base), 3 * self._frame)
        self._position = self._end = -1
        self._shown_until: int | None = None
        self._lost_bytes = 0

    def before(self, packet: Packet[Any]) -> bool:
        """Takes the next packet of any stream; whether pictures are missing before it."""
        position = packet.pos if packet.pos is not None else self._end
        if position != self._position:  # laced packets share the position of their block
            if self._end >= 0:
                self._lost_bytes += max(0, position - self._end - _BLOCK_HEADERS)
            self._position = self._end = position
        self._end += packet.size
        shown = timestamp(packet)
        if packet.stream is not self._stream or shown is None:
            return False
        before, lost_bytes = self._shown_until, self._lost_bytes
        self._shown_until = max(shown + (packet.duration or self._frame), before or 0)
        self._lost_bytes = 0
        return before is not None and lost_bytes > 0 and shown - before > self._longest


def can_skip(media: Media) -> bool:
    """Whether the decoder can be told to leave out pictures that nothing refers to.

    HEVC marks such pictures within one temporal layer, and layers above may still refer to them.
    """
    context = media.stream.codec_context
    if context.name != "hevc":
        return True
    header = context.extradata or b""
    # ``numTemporalLayers`` of the decoder configuration record (ISO/IEC 14496-15).
    return len(header) > 21 and header[0] == 1 and (header[21] >> 3) & 7 == 1


def timestamp(packet: Packet[Any]) -> int | None:
    """When a packet's picture is shown, in ticks; containers without B-frames may only have dts."""
    return packet.pts if packet.pts is not None else packet.dts


def from_keyframe(media: Media) -> Iterator[Packet[Any]] | None:
    """Packets from the next keyframe on; None when none comes within reach."""
    source = packets(media)
    for n, packet in enumerate(source):
        if packet.is_keyframe and timestamp(packet) is not None:
            return chain([packet], source)
        if n == _PACKETS_TO_A_KEYFRAME:
            break
    return None


def starts_before(media: Media, pts: int) -> Iterator[tuple[Iterator[Packet[Any]], bool]]:
    """Places to start decoding so that the picture on screen at ``pts`` comes out, best first.

    Each is (packets from a keyframe shown at or before ``pts``, whether this is the file's very
    beginning); the last one is, always. To be read one at a time: each seek ends the one before.
    """
    target, first_pts = pts, media.stream.start_time or 0
    back = round(_FIRST_STEP_BACK_S / media.time_base)
    while target > first_pts:
        try:
            media.container.seek(target, stream=media.stream)
        except MEDIA_ERRORS:
            break
        found = from_keyframe(media)
        if found is not None:
            packet = next(found)
            shown = timestamp(packet)
            if shown is not None and shown <= pts:
                yield chain([packet], found), False
        elif (readable := _last_readable(media)) < target:
            # The index promises more than the file has: go where it ends, not there step by step.
            target = pts = readable
            continue
        target = pts - back
        back *= _STEP_GROWTH
    rewind(media)
    yield from_keyframe(media) or _from_anywhere(media), True


def _last_readable(media: Media) -> int:
    """Timestamp of the last index entry that lies wholly inside the file, else the largest."""
    entries = media.stream.index_entries
    readable = bisect_left(
        range(len(entries)),
        True,
        key=lambda i: entries[i].pos + entries[i].size > media.file.size,
    )
    return entries[readable - 1].timestamp if 0 < readable < len(entries) else sys.maxsize


def need_until(media: Media, pts: int) -> None:
    """Lets the store be asked at once for what leads up to the picture shown at ``pts``.

    Where that lies the index tells, between two entries their share of the time; without an index
    nothing is said.
    """
    entries = media.stream.index_entries
    if not has_index(media) or len(entries) < 2:
        return
    pts += round(_DECODED_AFTER_S / media.time_base)
    after = bisect_left(range(len(entries)), pts, key=lambda i: entries[i].timestamp)
    if not 0 < after < len(entries):
        return
    one, two = entries[after - 1], entries[after]
    share = Fraction(pts - one.timestamp, max(1, two.timestamp - one.timestamp))
    media.file.need_until(round(one.pos + share * (two.pos - one.pos)))


def has_index(media: Media) -> bool:
    """Whether the container has one; what FFmpeg keeps of transport streams are its own seeks."""
    return not media.container.format.flags & cast(int, Flags.ts_discont.value)


def last_end_s(media: Media, from_pts: int) -> Fraction:
    """Where the last packet of any stream ends, in seconds of the file's own time."""
    for stream in media.container.streams:
        stream.discard = Discard.default
    with suppress(*MEDIA_ERRORS):
        media.container.seek(from_pts, stream=media.stream)
    end_s = Fraction(0)
    for packet in packets(media, every_stream=True):
        shown = timestamp(packet)
        if shown is not None and packet.time_base:
            end_s = max(end_s, (shown + (packet.duration or 0)) * packet.time_base)
    return end_s


def rewind(media: Media) -> None:
    """Back to the first packet of the file."""
    first = media.stream.start_time or 0
    # Far before the start: leading pictures and cut-off beginnings lie before time zero.
    for target in (first - round(3600 / media.time_base), first):
        try:
            media.container.seek(target, stream=media.stream)
        except MEDIA_ERRORS:
            continue
        return


def _from_anywhere(media: Media) -> Iterator[Packet[Any]]:
    rewind(media)
    return packets(media)


def _unopenable(file: RangedReader, error: Exception) -> VideoError:
    """Says what is wrong with a file that no demuxer takes."""
    file.seek(0)
    head = file.read(16)
    if head[4:8] in (b"ftyp", b"mdat", b"moov", b"wide", b"free", b"skip"):
        boxes, where = _boxes(file), f"{file.size} bytes"
        if all(kind != b"moov" for kind, _, _ in boxes):
            return VideoError(
                "Truncated",
                "the mp4 index (moov) is missing; the file was probably cut short",
                where,
            )
        if boxes[-1][2] > file.size:
            kind = boxes[-1][0].decode("ascii", "replace")
            return VideoError("Truncated", f"the file ends inside its index ({kind})", where)
        return VideoError("Damaged", "the mp4 index (moov) cannot be read")
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return VideoError("Damaged", "the Matroska or WebM header cannot be read")
    reason = getattr(error, "strerror", None) or type(error).__name__
    return VideoError("NotAVideo", f"no video container is recognised ({reason})")


def _boxes(file: RangedReader) -> list[tuple[bytes, int, int]]:
    """(kind, start, promised end) of the top-level boxes of an mp4."""
    boxes: list[tuple[bytes, int, int]] = []
    start = 0
    while start + 8 <= file.size and len(boxes) < 1000:
        file.seek(start)
        header = file.read(16)
        length = int.from_bytes(header[:4], "big")
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        end = file.size if length == 0 else start + length
        if end < start + 8:
            break
        boxes.append((header[4:8], start, end))
        start = end
    return boxes
