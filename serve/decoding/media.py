"""Pictures and videos that clients send, to pixels as the model takes them.

Videos go through the bulk jobs' own decoder, so the same file gives the same pixels here and there.
All of it blocks, and FFmpeg may crash on what it is given: call it in a process that may die
(``serve.decoding``).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from av.codec.context import CodecContext
from av.packet import Packet
from av.video.frame import VideoFrame
from PIL import Image

from actors.decode import decode_segment
from actors.grid import exact_fps, grid_size
from actors.media import MEDIA_ERRORS, Opener
from actors.pictures import PictureMaker
from actors.probe import probe
from actors.ranged import RangedReader
from longreel.errors import StorageError, VideoError
from longreel.errors import kind_of as error_kind
from longreel.schemas import FAILED
from serve.live.items import Pixels, SessionError
from serve.settings import ApiSettings

#: Of a video one stretch is decoded after the other: so many bytes of pixels, so many seconds.
_STRETCH_BYTES = 64 * 2**20
_STRETCH_S = 64
#: And of a piece that is answered whole.
_PIECE_BYTES = 512 * 2**20

#: What Pillow raises for broken pictures; its parsers let whatever they stumble on come out.
_PICTURE_ERRORS = (
    OSError, SyntaxError, ValueError, ArithmeticError, LookupError, EOFError, TypeError,
    AttributeError, AssertionError, struct.error,
)  # fmt: skip
_STILLS = ("JPEG", "PNG", "WEBP", "GIF")
_ORIENTATION = 0x0112  # of EXIF
# How EXIF's orientations are made upright: quarter turns counter-clockwise, then left to right.
_UPRIGHT = {2: (0, True), 3: (2, False), 4: (2, True), 5: (3, True), 6: (3, False), 7: (1, True),
            8: (1, False)}  # fmt: skip
_EXIF = b"Exif\0\0"
_MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp", b"moof")
_STILL_BRANDS = (b"heic", b"heix", b"mif1", b"msf1", b"avif", b"avis")
_VIDEO_HEADS = (
    b"\x1a\x45\xdf\xa3",  # Matroska, WebM
    b"\x00\x00\x01\xba",  # MPEG program stream
    b"\x00\x00\x01\xb3",  # MPEG-1/2 video
    b"FLV\x01",
    b"OggS",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",  # ASF, WMV
)


class MediaError(SessionError):
    """A picture or video that cannot be taken.

    ``code`` is ``media_error`` (cannot be decoded), ``media_too_large`` or
    ``unsupported_media_type``; the message says what is wrong, and where if that is known.
    """


def kind_of(data: bytes) -> Literal["image", "video"] | None:
    """What the first bytes (some 400 are enough) say this is; None for neither."""
    if data.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a")):
        return "image"
    if data[:4] == b"RIFF":
        return {b"WEBP": "image", b"AVI ": "video"}.get(data[8:12])  # type: ignore[return-value]
    if data[4:8] in _MP4_BOXES:
        return None if data[4:8] == b"ftyp" and data[8:12] in _STILL_BRANDS else "video"
    # Packets of 188 bytes, or of 192 with a time before each.
    if any(
        len(data) > first + step and data[first] == data[first + step] == 0x47
        for first, step in ((0, 188), (4, 192))
    ):
        return "video"
    return "video" if data.startswith(_VIDEO_HEADS) else None


def decode_image(data: bytes, side: int, settings: ApiSettings) -> Pixels:
    """A JPEG, PNG, WebP or GIF (its first picture) as (side, side, 3) uint8 RGB, upright.

    What is transparent is white.

    Raises:
        MediaError: it is none of these, has too many pixels, or is damaged.
    """
    if kind_of(data) != "image":
        raise MediaError(
            "unsupported_media_type", f"{_named(data)} is not a JPEG, PNG, WebP or GIF picture"
        )
    try:
        with Image.open(io.BytesIO(data), formats=_STILLS) as image:
            _check_pixels("the picture", image.width, image.height, settings)
            orientation = image.getexif().get(_ORIENTATION, 1)
            frame = _jpeg_frame(image, data, settings)
            if frame is None:
                frame = VideoFrame.from_ndarray(_rgb(image), format="rgb24")
    except MediaError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise MediaError("media_too_large", "the picture has too many pixels") from None
    except _PICTURE_ERRORS as error:
        raise MediaError("media_error", f"the picture cannot be decoded: {error}") from None
    picture = PictureMaker((side, side), 0, None).model_input(frame)
    turns, mirrored = _UPRIGHT.get(orientation, (0, False))
    picture = np.rot90(picture, turns)
    return np.ascontiguousarray(picture[:, ::-1] if mirrored else picture)


@dataclass(frozen=True)
class Video:
    """A video that was looked into and is within the limits.

    Attributes:
        uri, etag: of its bytes.
        origin_pts: first frame shown, in ticks of its own time base.
        duration_s: as it promises.
        fps: of the grid on which its frames are taken.
        frames: how many grid points it has.
    """

    uri: str
    etag: str
    origin_pts: int
    duration_s: float
    fps: float
    frames: int

    def stretches(self, side: int) -> Iterator[tuple[int, int]]:
        """[first, end) grid points of one stretch after another, each bounded in time and bytes."""
        step = min(_STRETCH_BYTES // (side * side * 3), int(_STRETCH_S * self.fps))
        for first in range(0, self.frames, max(1, step)):
            yield first, min(self.frames, first + max(1, step))


@dataclass(frozen=True)
class Stretch:
    """The healthy frames of a stretch.

    Attributes:
        times_s: seconds since the video's first frame.
        frames: (n, side, side, 3) uint8 RGB.
        error: why there are none, if that is so.
    """

    times_s: list[float]
    frames: Pixels
    error: str | None


def decode_piece(data: bytes, side: int, fps: float, settings: ApiSettings) -> Iterator[Stretch]:
    """An encoded video's frames on the grid of ``fps``, stretch by stretch.

    Raises:
        MediaError: it is no video, is too long or too large, or nothing of it can be decoded.
    """
    if kind_of(data) != "video":
        raise MediaError("unsupported_media_type", f"{_named(data)} is not a video")
    view = memoryview(data)

    def opener() -> RangedReader:
        def fetch(start: int, length: int) -> bytes:
            return bytes(view[start : start + length])

        return RangedReader(len(view), fetch, name="a piece", buffer_bytes=0)

    video = open_video("a piece", fps, settings, opener)
    if video.frames * side * side * 3 > _PIECE_BYTES:
        raise MediaError(
            "media_too_large",
            f"the video gives {video.frames} frames at {fps:g} fps, more than one piece may",
        )
    error, found = None, False
    for first, end in video.stretches(side):
        stretch = decode_stretch(video, first, end, side, settings, opener)
        error, found = error or stretch.error, found or bool(stretch.times_s)
        yield stretch
    if not found:
        raise nothing_decoded(error)


def decode_stretch(
    video: Video,
    first: int,
    end: int,
    side: int,
    settings: ApiSettings,
    opener: Opener | None = None,
) -> Stretch:
    """Grid points [first, end) of a video, (side, side, 3) pixels each.

    Args:
        opener: of bytes that lie elsewhere than at the video's uri.

    Raises:
        SessionError: ``url_unreachable``: they could not be read.
    """
    try:
        decoded = decode_segment(
            video.uri,
            etag=video.etag,
            origin_pts=video.origin_pts,
            first_index=first,
            end_index=end,
            fps=video.fps,
            size=(side, side),
            thumbnail_width=0,
            is_last=end == video.frames,
            duration_s=video.duration_s,
            max_pixels=settings.max_pixels,
            opener=opener,
        )
    except StorageError as failure:
        raise _unreadable(failure.kind) from None
    error = None
    if decoded.status == FAILED:
        error = decoded.error or "no frame can be decoded"
        if error_kind(error) not in VideoError.KINDS:
            raise _unreadable(error_kind(error))
    return Stretch(decoded.times_s.tolist(), decoded.frames, error)


def nothing_decoded(error: str | None) -> MediaError:
    """Of a video none of whose stretches gave a frame."""
    why = error or "no frame can be decoded"
    return MediaError("media_error", f"the video cannot be decoded: {why}")


def _unreadable(kind: str) -> SessionError:
    return SessionError("url_unreachable", f"the video cannot be read: {kind}")


def open_video(uri: str, fps: float, settings: ApiSettings, opener: Opener | None = None) -> Video:
    """Looks into the video at ``uri`` without decoding more than its first frame.

    Args:
        opener: of bytes that lie elsewhere; ``uri`` is only their name then.

    Raises:
        MediaError: it is no video, or beyond the limits.
        SessionError: ``url_unreachable``, or ``invalid_value`` for an impossible ``fps``.
    """
    try:
        rate = exact_fps(fps)
    except ValueError as error:
        raise SessionError("invalid_value", str(error)) from None
    try:
        info = probe(uri, settings.max_pixels, opener)
    except VideoError as error:
        if error.kind == "TooLarge":
            raise MediaError("media_too_large", f"the video's {error.message}") from None
        code = "unsupported_media_type" if error.kind == "NotAVideo" else "media_error"
        raise MediaError(code, f"the video cannot be decoded: {error}") from None
    except StorageError as error:
        raise _unreadable(error.kind) from None
    if info.duration_s > settings.max_video_s:
        raise MediaError(
            "media_too_large",
            f"the video is {info.duration_s:.1f} s long, more than {settings.max_video_s:g} s",
        )
    frames = grid_size(info.duration_s, rate)
    return Video(info.uri, info.etag, info.origin_pts, info.duration_s, fps, frames)


def _check_pixels(what: str, width: int, height: int, settings: ApiSettings) -> None:
    if width * height > settings.max_pixels:
        raise MediaError(
            "media_too_large",
            f"{what} has {width} x {height} pixels, more than {settings.max_pixels} in all",
        )


def _jpeg_frame(image: Image.Image, data: bytes, settings: ApiSettings) -> VideoFrame | None:
    """A JPEG as FFmpeg decodes it, as it does each picture of a video of JPEGs.

    None where it is none, or one that FFmpeg takes for damaged: Pillow may know better.
    """
    if image.format not in ("JPEG", "MPO") or image.mode not in ("RGB", "L"):
        return None
    decoder = CodecContext.create("mjpeg", "r")
    decoder.thread_count = 1
    decoder.options = {"err_detect": "explode", "max_pixels": str(settings.max_pixels)}
    # FFmpeg would turn it by EXIF as well, and PyAV cannot tell whether it is mirrored then.
    hidden = data.replace(_EXIF, bytes(len(_EXIF)))
    try:
        frames = decoder.decode(Packet(hidden)) or decoder.decode(None)
    except MEDIA_ERRORS:
        return None
    return frames[0] if frames and isinstance(frames[0], VideoFrame) else None


def _rgb(image: Image.Image) -> Pixels:
    """(height, width, 3) as stored, before any turn."""
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip
        grey = (np.asarray(image).clip(0, 65535) // 257).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        image = Image.alpha_composite(white, rgba)
    return np.asarray(image.convert("RGB"))


def _named(data: bytes) -> str:
    return f"what begins with {data[:8].hex(' ')}" if data else "an empty body"
