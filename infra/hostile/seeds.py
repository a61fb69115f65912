"""Small healthy files of every container and picture format that clients may send."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from PIL import Image

_WIDTH, _HEIGHT, _RATE, _FRAMES = 64, 48, 10, 20


@dataclass(frozen=True)
class _Made:
    format: str
    codec: str
    options: tuple[tuple[str, str], ...] = ()
    sound: str | None = None


_VIDEOS = {
    "mp4": _Made("mp4", "libx264", sound="aac"),
    "fragmented.mp4": _Made(
        "mp4", "libx264", (("movflags", "frag_keyframe+empty_moov+default_base_moof"),)
    ),
    "mov": _Made("mov", "mjpeg"),
    "mkv": _Made("matroska", "libx264", sound="aac"),
    "webm": _Made("webm", "libvpx"),
    "avi": _Made("avi", "mjpeg"),
    "ts": _Made("mpegts", "libx264", sound="aac"),
    "flv": _Made("flv", "flv"),
    "ogv": _Made("ogg", "libvpx"),
    "mpg": _Made("mpeg", "mpeg2video"),
}
_PICTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "jpeg": ("JPEG", {"quality": 80}),
    "progressive.jpeg": ("JPEG", {"progressive": True}),
    "png": ("PNG", {}),
    "webp": ("WEBP", {}),
    "lossless.webp": ("WEBP", {"lossless": True}),
    "gif": ("GIF", {}),
}


def seeds() -> dict[str, bytes]:
    """Files by name; formats that this build of FFmpeg cannot write are left out."""
    found = {}
    for name, made in _VIDEOS.items():
        try:
            found[name] = _video(made)
        except (ValueError, av.FFmpegError):
            continue
    for name, (kind, options) in _PICTURES.items():
        data = io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = 6
        exif[0x010E] = "a picture"
        if kind == "GIF":
            pictures = [Image.fromarray(_draw(n)) for n in range(4)]
            pictures[0].save(data, kind, save_all=True, append_images=pictures[1:])
        else:
            Image.fromarray(_draw(0)).save(data, kind, exif=exif, **options)
        found[name] = data.getvalue()
    return found


def _draw(number: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    picture = np.zeros((_HEIGHT, _WIDTH, 3), np.uint8)
    picture[:, :, 0] = (np.arange(_WIDTH) * 4 + 9 * number) % 256
    picture[:, :, 1] = (np.arange(_HEIGHT)[:, None] * 5) % 256
    picture[number % _HEIGHT, :, 2] = 255
    return picture


def _video(made: _Made) -> bytes:
    file = io.BytesIO()
    # Exact, or some would write a number of their own into each file.
    options = {**dict(made.options), "fflags": "+bitexact"}
    with av.open(file, "w", format=made.format, options=options) as container:
        stream: Any = container.add_stream(made.codec, rate=_RATE)
        stream.width, stream.height = _WIDTH, _HEIGHT
        stream.pix_fmt = "yuvj420p" if made.codec == "mjpeg" else "yuv420p"
        stream.codec_context.gop_size = 5
        # One thread: what comes out must not depend on the machine's cores.
        stream.codec_context.thread_count = 1
        sound: Any = container.add_stream(made.sound, rate=8000, layout="mono") if made.sound else 0
        converter = VideoReformatter()
        for number in range(_FRAMES):
            drawn = av.VideoFrame.from_ndarray(_draw(number), "rgb24")
            # On several threads its rounding differs from one time to the next.
            frame = converter.reformat(drawn, format=stream.pix_fmt, threads=1)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound:
            for number in range(_FRAMES):
                tone = av.AudioFrame.from_ndarray(
                    np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
                )
                tone.sample_rate, tone.pts = 8000, 1024 * number
                container.mux(sound.encode(tone))
            container.mux(sound.encode(None))
    return file.getvalue()
