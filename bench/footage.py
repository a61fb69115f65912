"""The videos of the decoding bench: rendered once, lengthened by repeating their packets."""

from __future__ import annotations

import shutil
from fractions import Fraction
from pathlib import Path

import av

from pipelines.samples import Clip, make_clip

#: H.264 as x264 makes it by default: B-frames, a keyframe every 250 pictures at most.
HD = Clip("hd.mp4", "libx264", 31, 30, 1280, 720, options={"preset": "medium"})
SMALL = Clip("small.mp4", "libx264", 32, 30, 320, 180, options={"preset": "medium"})


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


def seconds_of(path: Path) -> float:
    """Length by the container."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return float((stream.duration or 0) * Fraction(stream.time_base or 1))


def make(clip: Clip, folder: Path) -> Path:
    """The clip, rendered if it is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    return make_clip(clip, folder)
