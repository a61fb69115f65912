"""What a plan must know of a video before any of it is worked on, by ranged reads."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from av.video.frame import VideoFrame

from actors.media import (
    MEDIA_ERRORS,
    Media,
    Opener,
    from_keyframe,
    has_index,
    last_end_s,
    open_media,
    packets,
    rewind,
    starts_before,
    timestamp,
)
from actors.objects import ObjectStat, stat_object
from actors.pictures import clockwise_degrees, shown_size
from longreel.errors import VideoError

# A file whose first pictures are broken may still be worth its rest, within reason.
_PACKETS_TO_A_FRAME = 500
#: Seconds that a video may last. What says more has lost count, and cuts of it would fill memory.
MOST_S = 31 * 86_400
#: Matroska's statistics tag: hours, minutes, seconds.
_TAG = re.compile(r"(\d{1,6}):(\d{1,2}):(\d{1,2}(?:\.\d{1,12})?)")
# Some slack for containers whose promised length is rounded.
_SAME_END_S = 1


@dataclass(frozen=True)
class VideoInfo:
    """One video as its header and index describe it.

    Times are seconds on the video's clock, whose zero is the first frame shown.

    Attributes:
        etag: Of the object that was probed.
        container: The demuxer's name, such as ``mov,mp4,m4a,3gp,3g2,mj2``.
        codec: Such as ``h264``.
        duration_s: Until the last frame's end.
        width: Of the upright picture, in square pixels.
        height: Of the upright picture.
        source_fps: Average frames per second, 0 if unknown.
        rotation: Degrees clockwise by which the stored picture is turned: 0, 90, 180 or 270.
        origin_pts: The first frame shown, in ticks of ``time_base``.
        keyframes_s: When keyframes are shown, in order; empty if the container has no index. They
            may be late by a few frames, since some indexes hold decoding times.
    """

    uri: str
    etag: str
    size_bytes: int
    container: str
    codec: str
    duration_s: float
    width: int
    height: int
    source_fps: float
    rotation: int
    origin_pts: int
    time_base: Fraction
    keyframes_s: tuple[float, ...]


def probe(uri: str, max_pixels: int | None = None, opener: Opener | None = None) -> VideoInfo:
    """Reads a video's header and index, and decodes its first frame.

    Only a video that does not say how long it is (live recordings) is read to its end, without
    decoding.

    Args:
        max_pixels: Of one frame as stored; larger ones are not decoded.
        opener: Of bytes that lie elsewhere; ``uri`` is only their name then.

    Raises:
        StorageError: The object cannot be read.
        VideoError: ``Empty``, ``NotAVideo``, ``NoVideoStream``, ``TooLarge`` (its frames, or longer
            than ``MOST_S``), ``Truncated`` (its index is missing) or ``Damaged`` (not one frame can
            be decoded).
    """
    found = stat_object(uri) if opener is None else ObjectStat(uri, 0, "")
    with open_media(found.uri, found.etag, max_pixels, opener) as media:
        first = _first_frame(media)
        origin_pts = first.pts or 0
        end_s, scanned = _end_s(media)
        keyframes = scanned if scanned is not None else _indexed_keyframes(media)
        origin_s = origin_pts * media.time_base
        duration_s = max(end_s - origin_s, media.frame_s)
        if duration_s > MOST_S:
            days = round(duration_s / 86_400)
            raise VideoError("TooLarge", f"times say that it lasts {days} days, more than 31")
        width, height = shown_size(first, media.stream.sample_aspect_ratio)
        rate = media.stream.average_rate or media.stream.guessed_rate
        return VideoInfo(
            uri=uri,
            etag=found.etag,
            size_bytes=media.file.size,
            container=media.container.format.name,
            codec=media.stream.codec_context.codec.canonical_name,
            duration_s=float(duration_s),
            width=width,
            height=height,
            source_fps=float(rate or 0),
            rotation=clockwise_degrees(first),
            origin_pts=origin_pts,
            time_base=media.time_base,
            keyframes_s=tuple(
                float((pts - origin_pts) * media.time_base)
                for pts in sorted(set(keyframes))
                if origin_pts <= pts < origin_pts + duration_s / media.time_base
            ),
        )


def _first_frame(media: Media) -> VideoFrame:
    """The first frame that decoding from the start shows: the clock's zero."""
    source, _ = next(starts_before(media, media.stream.start_time or 0))
    first_pts: int | None = None
    for n, packet in enumerate(source):
        if first_pts is None:
            first_pts = timestamp(packet)
        try:
            frames = packet.decode()
        except MEDIA_ERRORS:
            frames = []
        for frame in frames:
            if frame.pts is not None and (first_pts is None or frame.pts >= first_pts):
                return frame
        if n == _PACKETS_TO_A_FRAME:
            break
    else:
        # A video of very few frames shows them only when asked for the rest.
        try:
            frames = media.stream.decode(None)
        except MEDIA_ERRORS:
            frames = []
        for frame in frames:
            if frame.pts is not None:
                return frame
    raise VideoError("Damaged", "no frame can be decoded")


def _end_s(media: Media) -> tuple[Fraction, list[int] | None]:
    """Where the pictures end in the file's own time, and keyframes if that took a whole scan."""
    stream, container = media.stream, media.container
    if stream.duration:
        return ((stream.start_time or 0) + stream.duration) * media.time_base, None
    tagged_s = _tagged_end_s(stream.metadata)
    if tagged_s is not None:
        return tagged_s, None
    if not container.duration or container.duration <= 0:
        return _scan(media)
    # Only the whole file's length is known, which may be that of its sound.
    promised_s = Fraction(container.duration, 1_000_000)
    last_pts = round(promised_s / media.time_base)
    packets_from, _ = next(starts_before(media, last_pts))
    pictures_end = max(
        ((timestamp(p) or 0) + (p.duration or 0) for p in packets_from), default=last_pts
    )
    pictures_end_s = pictures_end * media.time_base
    if pictures_end_s < promised_s - _SAME_END_S:
        everything_end_s = last_end_s(media, pictures_end)
        if everything_end_s < promised_s - _SAME_END_S:
            return promised_s, None  # The tail is missing, which the decoder will say.
    return pictures_end_s, None


def _tagged_end_s(metadata: dict[str, str]) -> Fraction | None:
    """Matroska's statistics tag, ``00:01:23.456000000``, where its writer left one."""
    for key, value in metadata.items():
        if key == "DURATION" or key.startswith("DURATION-"):
            if not (said := _TAG.fullmatch(value.strip("\0 "))):
                continue
            hours, minutes, seconds = said.groups()
            end_s = int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds)
            if end_s > 0:
                return end_s
    return None


def _scan(media: Media) -> tuple[Fraction, list[int]]:
    """The end and the keyframes from every packet of the stream; nothing is decoded."""
    rewind(media)
    end, keyframes = 0, []
    for packet in packets(media):
        shown = timestamp(packet)
        if shown is None:
            continue
        frame = round(media.frame_s / media.time_base)
        end = max(end, shown + (packet.duration or frame))
        if packet.is_keyframe:
            keyframes.append(shown)
    return end * media.time_base, keyframes


def _indexed_keyframes(media: Media) -> list[int]:
    """When the index's keyframes are shown, in ticks; none without an index.

    Some demuxers index decoding times (mp4), others presentation times (Matroska). Which, and how
    far apart the two are, two keyframe packets from inside the file tell. The larger distance
    counts: a cut a little after its keyframe costs nothing, one before it a whole extra GOP.
    """
    if not has_index(media):
        return []
    # Matroska reads its index at the first seek, so seek before looking.
    first = _keyframe_packet_at(media, media.stream.start_time or 0)
    times = [entry.timestamp for entry in media.stream.index_entries if entry.is_keyframe]
    delays = [0]
    for i in sorted({1, len(times) // 2} - {0} if len(times) > 1 else ()):
        # Just before the next keyframe, since a seek aims at presentation times.
        until = times[i + 1] - 1 if i + 1 < len(times) else times[i] + (times[i] - times[i - 1])
        found = _keyframe_packet_at(media, until)
        if found is not None and found[1] in times:
            delays.append(found[0] - found[1])
    shown = [time + max(delays) for time in times]
    if first is not None and times and first[1] == times[0]:
        shown[0] = first[0]
    return shown


def _keyframe_packet_at(media: Media, pts: int) -> tuple[int, int] | None:
    """(pts, dts) of the keyframe packet that a seek finds."""
    try:
        media.container.seek(pts, stream=media.stream)
    except MEDIA_ERRORS:
        return None
    found = from_keyframe(media)
    packet = next(found) if found is not None else None
    if packet is None or packet.pts is None or packet.dts is None:
        return None
    return packet.pts, packet.dts
