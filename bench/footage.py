"""The videos of the decoding bench: rendered once, lengthened by repeating their packets."""

from __future__ import annotations

import hashlib
import math
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image

from mod.world.streams import World

FPS = 30
#: Contrast of the ground in grey levels.
_CONTRAST = 8.0


@dataclass(frozen=True)
class Scene:
    """One video: H.264 as x264 makes it by default, with B-frames, a keyframe every 250 pictures
    at most.

    Attributes:
        fps: pictures a second.
    """

    name: str
    seed: int
    seconds: int
    width: int
    height: int
    fps: int = FPS


#: Where scenes stay from one bench to the next: rendering takes longer than most of them.
KEPT = Path(tempfile.gettempdir()) / "longreel-bench"
#: Nearly 2 Mbit/s, like a film or a camera at that size.
HD = Scene("hd.mp4", 31, 30, 1280, 720)
SMALL = Scene("small.mp4", 32, 30, 320, 180)
MINUTE = Scene("minute25.mp4", 33, 60, 1280, 720, fps=25)


def rendered(scene: Scene) -> Path:
    """The scene in ``KEPT``, rendered if it is not there yet or was made by other code."""
    made_by = repr(scene).encode() + Path(__file__).read_bytes()
    path = KEPT / hashlib.sha256(made_by).hexdigest()[:12] / scene.name
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    # Where two render it at once, each has a draft of its own.
    draft = path.with_name(f".{uuid.uuid4().hex}.mp4")
    with av.open(str(draft), "w") as container:
        stream = container.add_stream("libx264", rate=scene.fps, options={"preset": "medium"})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = scene.width, scene.height, "yuv420p"
        for number, picture in enumerate(islice(_film(scene), scene.seconds * scene.fps)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, scene.fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    draft.rename(path)
    return path


def _film(scene: Scene) -> Iterator[NDArray[np.uint8]]:
    """The generated world before a ground of all scales that a camera pans over.

    The world alone is so plain that a video of it is a fifth of the size of a real one, and a
    decoder has next to nothing to do.
    """
    world = World(scene.seed, width=scene.width, height=scene.height, cut_rate=0.1)
    ground = _ground(scene)
    # The world runs at two samples a second.
    for number, (picture, _) in enumerate(world.film(scene.fps // 2)):
        t = number / scene.fps
        x = scene.width * (0.5 + 0.4 * math.sin(0.6 * t))
        y = scene.height * (0.5 + 0.4 * math.sin(0.43 * t))
        moved = picture + _view(ground, x, y, scene)[..., None]
        yield np.clip(moved, 0, 255).astype(np.uint8)


def _ground(scene: Scene) -> NDArray[np.float32]:
    """Noise of several scales, twice as wide and high as the picture."""
    rng = np.random.default_rng(scene.seed)
    size = 2 * scene.width, 2 * scene.height
    ground = np.zeros(size[::-1], np.float32)
    for scale in (2, 4, 8, 16, 64):
        coarse = rng.standard_normal((size[1] // scale, size[0] // scale)).astype(np.float32)
        ground += np.sqrt(scale) * np.asarray(
            Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
        )
    return np.float32(_CONTRAST) * ground / ground.std()


def _view(ground: NDArray[np.float32], x: float, y: float, scene: Scene) -> NDArray[np.float32]:
    """The part of the ground whose corner lies at a place between its pixels."""
    column, row = int(x), int(y)
    right, down = np.float32(x - column), np.float32(y - row)
    part = ground[row : row + scene.height + 1, column : column + scene.width + 1]
    part = part[:, :-1] + right * (part[:, 1:] - part[:, :-1])
    return part[:-1] + down * (part[1:] - part[:-1])


def repeated(source: Path, times: int, path: Path) -> Path:
    """``source`` played ``times`` times in a row, packets copied as they are."""
    with av.open(str(path), "w") as out:
        copied, shift = None, 0
        for _ in range(times):
            with av.open(str(source)) as container:
                stream = container.streams.video[0]
                if copied is None:
                    copied = out.add_stream_from_template(stream)
                assert stream.duration is not None
                for packet in container.demux(stream):
                    if packet.pts is None or packet.dts is None:
                        continue
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = copied
                    out.mux(packet)
                shift += stream.duration
    return path


def short_ones(source: Path, count: int, folder: Path) -> list[Path]:
    """``count`` copies of ``source`` in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    return [Path(shutil.copy(source, folder / f"{i:03}.mp4")) for i in range(count)]


def seconds_of(path: Path | str) -> float:
    """Length by the container."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return float((stream.duration or 0) * Fraction(stream.time_base or 1))
