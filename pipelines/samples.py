"""Sample videos of the generated world in several codecs, one damaged: ``python -m
pipelines.samples FOLDER``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

from mod.world.streams import World

FPS = 24
#: Pictures between two samples of the world, which runs at two samples a second.
PICTURES = FPS // 2
#: Chance of a cut at each of those samples.
CUT_RATE = 0.1


@dataclass(frozen=True)
class Clip:
    """One sample video.

    Attributes:
        seconds: length.
        damaged: bytes in its middle are overwritten after encoding.
    """

    name: str
    codec: str
    seed: int
    seconds: int
    width: int = 384
    height: int = 216
    options: dict[str, str] = field(default_factory=dict)
    damaged: bool = False


CLIPS = (
    Clip("h264.mp4", "libx264", 11, 60, options={"preset": "veryfast", "g": "48"}),
    Clip(
        "hevc.mkv",
        "libx265",
        12,
        30,
        options={"preset": "ultrafast", "g": "48", "x265-params": "log-level=error"},
    ),
    Clip("vp9.webm", "libvpx-vp9", 13, 20, options={"deadline": "realtime", "cpu-used": "8"}),
    Clip("mpeg4.avi", "mpeg4", 14, 30),
    Clip("h264-stream.ts", "libx264", 15, 30, options={"preset": "veryfast", "g": "48"}),
    Clip("mjpeg.mov", "mjpeg", 16, 15),
    Clip(
        "damaged.mp4",
        "libx264",
        17,
        30,
        options={"preset": "veryfast", "g": "48"},
        damaged=True,
    ),
)


def make_clip(clip: Clip, folder: Path) -> Path:
    """Render and encode one clip and return its path; it is the same every time."""
    path = folder / clip.name
    if path.exists():
        return path
    draft = path.with_name("." + path.name)
    with av.open(str(draft), "w") as container:
        stream = container.add_stream(clip.codec, rate=FPS, options=dict(clip.options))
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = clip.width, clip.height
        stream.pix_fmt = "yuvj420p" if clip.codec == "mjpeg" else "yuv420p"
        if clip.codec in ("mpeg4", "mjpeg"):
            stream.bit_rate = 1_500_000
        stream.codec_context.thread_count = 1
        for number, picture in enumerate(_film(clip)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    if clip.damaged:
        _damage(draft)
    draft.rename(path)
    return path


def make_all(folder: Path) -> list[Path]:
    """Make what is missing of ``CLIPS`` in ``folder``, on all cores."""
    folder.mkdir(parents=True, exist_ok=True)
    workers = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return list(pool.map(make_clip, CLIPS, [folder] * len(CLIPS)))


def _film(clip: Clip) -> Iterator[NDArray[np.uint8]]:
    world = World(clip.seed, width=clip.width, height=clip.height, cut_rate=CUT_RATE)
    return (picture for picture, _ in islice(world.film(PICTURES), clip.seconds * FPS))


def _damage(path: Path) -> None:
    """Overwrite a stretch of media data, as a bad disk or a lossy copy does."""
    content = bytearray(path.read_bytes())
    start = int(len(content) * 0.55)
    length = len(content) // 12
    content[start : start + length] = bytes(length)
    path.write_bytes(content)


def main() -> None:
    """Command line of the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the videos go")
    folder = parser.parse_args().folder
    print(f"rendering {len(CLIPS)} sample videos into {folder} ...", flush=True)
    total = 0
    for path in make_all(folder):
        total += path.stat().st_size
    seconds = sum(clip.seconds for clip in CLIPS)
    print(f"{len(CLIPS)} videos, {seconds} s, {total / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
