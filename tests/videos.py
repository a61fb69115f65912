"""Tiny videos whose every frame carries its own number, in the kinds that break samplers.

Each maker writes one file and returns a ``Clip``: what a player would show and when, known from
how the file was made, never from reading it back.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from PIL import Image

COLUMNS, ROWS = 6, 2
BITS = COLUMNS * ROWS
WIDTH, HEIGHT = 96, 64
RATE = 25


@dataclass(frozen=True)
class Clip:
    """A written file: ``shown_s[i]`` is when picture ``numbers[i]`` appears, from 0 on."""

    path: Path
    shown_s: tuple[Fraction, ...]
    numbers: tuple[int, ...]
    end_s: Fraction
    rotation: int = 0

    @property
    def uri(self) -> str:
        return str(self.path)

    def number_at(self, time_s: Fraction) -> int:
        """The picture on screen at a time: the last one shown at or before it."""
        return self.numbers[bisect_right(self.shown_s, time_s) - 1]


def draw(number: int, width: int = WIDTH, height: int = HEIGHT) -> npt.NDArray[np.uint8]:
    """An upright (height, width, 3) RGB picture: number in blocks above, moving gradient below."""
    image = np.empty((height, width, 3), np.uint8)
    half = height // 2
    for bit in range(BITS):
        row, column = divmod(bit, COLUMNS)
        top, bottom = row * half // ROWS, (row + 1) * half // ROWS
        left, right = column * width // COLUMNS, (column + 1) * width // COLUMNS
        image[top:bottom, left:right] = 255 if number >> bit & 1 else 0
    across = (np.arange(width) * 2 + number * 5) % 256
    image[half:, :, 0] = across
    image[half:, :, 1] = 255 - across
    image[half:, :, 2] = (number * 11) % 256
    return image


def read_number(image: npt.NDArray[np.uint8]) -> int:
    """The number drawn in an (h, w, 3) picture of any size, after any lossy codec."""
    height, width = image.shape[:2]
    number = 0
    for bit in range(BITS):
        row, column = divmod(bit, COLUMNS)
        y = int((row + 0.5) * height / 2 / ROWS)
        x = int((column + 0.5) * width / COLUMNS)
        patch = image[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
        number |= int(patch.mean() > 128) << bit
    return number


def write_video(
    path: Path,
    codec: str = "libx264",
    pts_ms: Sequence[int] | None = None,
    *,
    n_frames: int = 100,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    container_format: str | None = None,
    container_options: dict[str, str] | None = None,
    rotation: int = 0,
    shift_s: Fraction = Fraction(0),
    audio_s: float = 0.0,
    gop: int = 12,
    max_b_frames: int | None = None,
) -> Clip:
    """Encodes pictures 0, 1, 2, ... at 25 fps, or at the given milliseconds.

    ``rotation`` is clockwise degrees a player must turn the stored picture by; ``size`` is that of
    the upright (width, height); ``shift_s`` moves every timestamp; ``audio_s`` adds a tone.
    """
    base = Fraction(1, 1000) if pts_ms is not None else Fraction(1, RATE)
    ticks = list(pts_ms) if pts_ms is not None else list(range(n_frames))
    width, height = size if rotation % 180 == 0 else size[::-1]
    with av.open(
        str(path), "w", format=container_format, container_options=container_options or {}
    ) as container:
        stream: Any = container.add_stream(codec, rate=RATE)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.codec_context.time_base = base
        stream.codec_context.gop_size = gop
        stream.codec_context.thread_count = 1
        if max_b_frames is not None:
            stream.codec_context.max_b_frames = max_b_frames
        stream.options = options or {}
        if rotation:
            stream.set_display_rotation(-rotation)
        audio: Any = container.add_stream("aac", rate=8000, layout="mono") if audio_s else None

        def mux(packets: Any) -> None:
            for packet in packets:
                if shift_s:
                    shift = int(shift_s / packet.time_base)
                    packet.pts += shift
                    packet.dts += shift
                container.mux(packet)

        for number, tick in enumerate(ticks):
            image = np.rot90(draw(number, *size), rotation // 90)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = tick, base
            mux(stream.encode(frame))
            if audio is not None:
                _write_tone(container, audio, min(audio_s, float(tick * base)))
        mux(stream.encode(None))
        if audio is not None:
            _write_tone(container, audio, audio_s)
            container.mux(audio.encode(None))
    shown = tuple((tick - ticks[0]) * base for tick in ticks)
    end = shown[-1] + Fraction(1, RATE)
    return Clip(path, shown, tuple(range(len(ticks))), end, rotation)


def _write_tone(container: Any, stream: Any, until_s: float) -> None:
    """Adds silence up to a time; the stream's own count of samples says how far it is."""
    while stream.codec_context.frame_size == 0 or _samples(stream) < until_s * 8000:
        samples = stream.codec_context.frame_size or 1024
        frame: Any = av.AudioFrame.from_ndarray(
            np.zeros((1, samples), np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate, frame.pts, frame.time_base = 8000, _samples(stream), Fraction(1, 8000)
        stream.metadata["samples"] = str(_samples(stream) + samples)
        container.mux(stream.encode(frame))


def _samples(stream: Any) -> int:
    return int(stream.metadata.get("samples", 0))


def x264(gop: int = 12, b_frames: int = 3, open_gop: bool = False) -> dict[str, str]:
    """Options for fixed GOPs with B-frames, open ones if asked."""
    parameters = f"keyint={gop}:min-keyint={gop}:scenecut=0:bframes={b_frames}:b-adapt=0"
    parameters += f":open-gop={int(open_gop)}:threads=1:rc-lookahead=10"
    return {"preset": "ultrafast", "crf": "23", "x264-params": parameters}


def cut_by_edit_list(clip: Clip, path: Path, cut_ms: int) -> Clip:
    """Makes an mp4's edit list begin ``cut_ms`` later, on a keyframe or not."""
    data = bytearray(clip.path.read_bytes())
    timescale = struct.unpack_from(">I", data, data.index(b"mdhd") + 16)[0]
    movie_timescale = struct.unpack_from(">I", data, data.index(b"mvhd") + 16)[0]
    entry = data.index(b"elst") + 12
    duration, media_time = struct.unpack_from(">Ii", data, entry)
    struct.pack_into(
        ">Ii",
        data,
        entry,
        duration - cut_ms * movie_timescale // 1000,
        media_time + cut_ms * timescale // 1000,
    )
    path.write_bytes(data)
    cut = Fraction(cut_ms, 1000)
    kept = [i for i, shown in enumerate(clip.shown_s) if shown >= cut]
    # The clock starts at the first picture shown, which may come a little after the cut.
    origin = clip.shown_s[kept[0]]
    return Clip(
        path,
        tuple(clip.shown_s[i] - origin for i in kept),
        tuple(clip.numbers[i] for i in kept),
        clip.end_s - origin,
    )


def write_tkhd_matrix(clip: Clip, path: Path, abcd: tuple[int, int, int, int]) -> Clip:
    """Sets an mp4's display matrix as raw bytes: stored (x, y) is shown at (ax + cy, bx + dy)."""
    data = bytearray(clip.path.read_bytes())
    a, b, c, d = (value << 16 for value in abcd)
    matrix = data.index(b"tkhd") + 4 + 4 + 20 + 8 + 8
    struct.pack_into(">9i", data, matrix, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return replace(clip, path=path)


def write_tkhd_rotation(clip: Clip, path: Path) -> Clip:
    """The matrix that phones write for portrait video: turn 90 degrees clockwise."""
    return replace(write_tkhd_matrix(clip, path, (0, 1, -1, 0)), rotation=90)


def truncate(clip: Clip, path: Path, keep: float) -> Clip:
    """The first part of a file, as a broken upload leaves it."""
    data = clip.path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    return replace(clip, path=path)


def damage(clip: Clip, path: Path, start: float, n_bytes: int = 400, seed: int = 0) -> Clip:
    """Overwrites bytes with noise, from a share of the file on."""
    data = bytearray(clip.path.read_bytes())
    offset = int(len(data) * start)
    data[offset : offset + n_bytes] = np.random.default_rng(seed).bytes(n_bytes)
    path.write_bytes(data)
    return replace(clip, path=path)


def write_recording(path: Path, codec: str = "libvpx", n_frames: int = 60) -> Clip:
    """A WebM as a browser's MediaRecorder makes it.

    It has no duration, no index, segment and clusters of unknown size, and begins late.
    """
    clip = write_video(
        path,
        codec,
        n_frames=n_frames,
        options={"deadline": "realtime", "cpu-used": "8"},
        container_format="webm",
        container_options={"live": "1", "cluster_time_limit": "1000"},
        shift_s=Fraction(1234, 1000),
    )
    data = bytearray(path.read_bytes())
    for element in (b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75"):
        at = data.find(element)
        while at >= 0:
            at += len(element)
            length = 9 - data[at].bit_length()
            data[at : at + length] = ((1 << 7 * length + 1) - 1).to_bytes(length, "big")
            at = data.find(element, at)
    path.write_bytes(data)
    return clip


def write_audio_only(path: Path, seconds: float = 2.0) -> Path:
    with av.open(str(path), "w") as container:
        audio: Any = container.add_stream("aac", rate=8000, layout="mono")
        _write_tone(container, audio, seconds)
        container.mux(audio.encode(None))
    return path


def write_cover_art(path: Path, seconds: float = 2.0) -> Path:
    """Audio with an attached picture, as music files have it (an .m4a ``covr`` atom)."""
    write_audio_only(path, seconds)
    cover = path.with_suffix(".jpg")
    Image.fromarray(draw(1)).save(cover)
    jpeg = cover.read_bytes()
    cover.unlink()

    def atom(kind: bytes, payload: bytes) -> bytes:
        return struct.pack(">I", len(payload) + 8) + kind + payload

    ilst = atom(b"ilst", atom(b"covr", atom(b"data", struct.pack(">II", 13, 0) + jpeg)))
    handler = atom(b"hdlr", bytes(8) + b"mdirappl" + bytes(9))
    udta = atom(b"udta", atom(b"meta", bytes(4) + handler + ilst))
    data = bytearray(path.read_bytes())
    moov = data.rindex(b"moov") - 4
    # The muxer puts moov last, so nothing that follows moves.
    size = struct.unpack_from(">I", data, moov)[0]
    assert moov + size == len(data)
    struct.pack_into(">I", data, moov, size + len(udta))
    path.write_bytes(bytes(data) + udta)
    return path


VFR_MS = tuple(
    sorted(
        {
            *range(0, 800, 40),
            803,
            817,
            900,
            *range(1500, 2000, 33),
            3900,
            3910,
            *range(4000, 4400, 50),
        }
    )
)

Maker = Callable[[Path], Clip]

#: Every kind of healthy video that the sampler must treat alike, by name.
HEALTHY: dict[str, Maker] = {
    "h264_b_frames": lambda d: write_video(d / "b.mp4", options=x264()),
    "h264_open_gop": lambda d: write_video(d / "open.mp4", options=x264(open_gop=True)),
    "h264_open_gop_ts": lambda d: write_video(d / "open.ts", options=x264(open_gop=True)),
    "h264_no_b_frames": lambda d: write_video(d / "p.mp4", options=x264(b_frames=0)),
    "h264_one_gop": lambda d: write_video(d / "gop.mp4", options=x264(gop=1000)),
    "h264_vfr": lambda d: write_video(d / "vfr.mp4", pts_ms=VFR_MS, options=x264()),
    "h264_vfr_mkv": lambda d: write_video(d / "vfr.mkv", pts_ms=VFR_MS, options=x264()),
    "h264_vfr_mkv_sound": lambda d: write_video(
        d / "vfr2.mkv", pts_ms=VFR_MS, options=x264(), audio_s=4.3
    ),
    "h264_late_start": lambda d: write_video(
        d / "late.mp4", options=x264(), shift_s=Fraction(36, 10), audio_s=5.0
    ),
    "h264_late_start_mkv": lambda d: write_video(
        d / "late.mkv", options=x264(), shift_s=Fraction(36, 10)
    ),
    "h264_fragmented": lambda d: write_video(
        d / "frag.mp4", options=x264(), container_options={"movflags": "frag_keyframe+empty_moov"}
    ),
    "h264_edit_list": lambda d: cut_by_edit_list(
        write_video(d / "whole.mp4", options=x264()), d / "edit.mp4", 960
    ),
    "h264_edit_list_off_keyframe": lambda d: cut_by_edit_list(
        write_video(d / "whole2.mp4", options=x264()), d / "edit2.mp4", 1010
    ),
    "mpeg4": lambda d: write_video(d / "mpeg4.mp4", "mpeg4", options={"b": "800k"}, max_b_frames=2),
    "mpeg4_avi": lambda d: write_video(d / "mpeg4.avi", "mpeg4", options={"b": "800k"}),
    "mpeg4_avi_b_frames": lambda d: write_video(
        d / "b.avi", "mpeg4", options={"b": "800k"}, max_b_frames=2
    ),
    "mpeg2_ts": lambda d: write_video(
        d / "mpeg2.ts", "mpeg2video", options={"b": "900k"}, max_b_frames=2
    ),
    "vp9_webm": lambda d: write_video(
        d / "vp9.webm", "libvpx-vp9", n_frames=60, options={"deadline": "realtime", "cpu-used": "8"}
    ),
    "vp8_webm_live": lambda d: write_video(
        d / "live.webm",
        "libvpx",
        n_frames=60,
        options={"deadline": "realtime", "cpu-used": "8"},
        container_options={"live": "1"},
    ),
    "vp8_webm_recorder": lambda d: write_recording(d / "recorder.webm"),
    "vp9_webm_recorder": lambda d: write_recording(d / "recorder9.webm", "libvpx-vp9"),
    "hevc": lambda d: write_video(
        d / "hevc.mp4",
        "libx265",
        n_frames=60,
        options={
            "preset": "ultrafast",
            "x265-params": "keyint=12:min-keyint=12:bframes=3:open-gop=1:pools=none:"
            "frame-threads=1:log-level=none",
        },
    ),
    "mjpeg_avi": lambda d: write_video(
        d / "mjpeg.avi", "mjpeg", n_frames=60, pix_fmt="yuvj420p", options={"q": "5"}
    ),
    "h264_ts": lambda d: write_video(d / "h264.ts", options=x264()),
    "rotated_90": lambda d: write_video(d / "r90.mp4", n_frames=50, options=x264(), rotation=90),
    "rotated_180": lambda d: write_video(d / "r180.mp4", n_frames=50, options=x264(), rotation=180),
    "rotated_270": lambda d: write_video(d / "r270.mp4", n_frames=50, options=x264(), rotation=270),
    "odd_size": lambda d: write_video(
        d / "odd.mkv", "mpeg4", n_frames=50, size=(97, 65), options={"b": "900k"}
    ),
    "single_frame": lambda d: write_video(d / "one.mp4", n_frames=1, options=x264()),
    "longer_audio": lambda d: write_video(
        d / "audio.mkv", n_frames=50, options=x264(), audio_s=5.0
    ),
}
