"""Decoding on the time grid beside what others offer for it: ``python -m bench.decode --json``.

Every side takes the same files at two frames a second to 384x384 RGB, all cores, in turn. Needs
the ``bench`` extra, which brings the peers and an ``ffmpeg`` command.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray

from actors import media
from actors.decode import decode_segment
from actors.objects import RangedReader, open_object
from bench.footage import HD, SMALL, make, repeated, seconds_of, short_ones
from bench.harness import most_resident_bytes, ratio, run
from longreel.schemas import PLAN
from pipelines.cluster import connected, cores
from pipelines.ids import Recipe
from pipelines.passes import in_batches, through
from pipelines.plan import plan_all
from pipelines.sources import expand_sources

FPS, SIDE = 2, 384
RECIPE = Recipe("bench", "bench", "bench", 0.2, float(FPS), 30.0, 0.0)


class Decoder:
    """The decoding half of a job's worker: frames go to the object store, counts come back."""

    def __init__(self) -> None:
        self._readers: list[RangedReader] = []
        setattr(media, "open_object", self._counted)  # noqa: B010 - a module, for this process

    def _counted(self, uri: str, etag: str | None = None) -> RangedReader:
        reader = open_object(uri, etag)
        self._readers.append(reader)
        return reader

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        for planned in batch.to_pylist():
            self._readers.clear()
            decoded = decode_segment(
                planned["uri"],
                etag=planned["etag"],
                origin_pts=planned["origin_pts"],
                first_index=planned["first_index"],
                end_index=planned["end_index"],
                fps=planned["fps"],
                size=(SIDE, SIDE),
                thumbnail_width=0,
                is_last=planned["segment_index"] == planned["n_segments"] - 1,
                duration_s=planned["duration_s"],
            )
            ray.put(decoded.frames)
            row = {
                "pid": os.getpid(),
                "frames": len(decoded.indices),
                "bytes": sum(reader.bytes_read for reader in self._readers),
                "peak": most_resident_bytes(),
            }
            yield pa.Table.from_pylist([row])


def ours(paths: Sequence[Path]) -> dict[str, int]:
    """Plan and decode through Ray Data; frames, bytes read, and peak memory of all processes."""
    sources = expand_sources([str(path) for path in paths])
    _, plan = plan_all(sources.videos, RECIPE)
    batches = in_batches(plan, cores(), largest=16)
    done = through(Decoder, (), batches, PLAN, cores())
    frames = read = 0
    peaks: dict[int, int] = {}
    for rows in done.iter_batches(batch_size=None, batch_format="pyarrow"):
        for row in rows.to_pylist():
            frames, read = frames + row["frames"], read + row["bytes"]
            peaks[row["pid"]] = max(peaks.get(row["pid"], 0), row["peak"])
    return {"frames": frames, "bytes": read, "peak": most_resident_bytes() + sum(peaks.values())}


def with_ffmpeg(paths: Sequence[Path]) -> int:
    """The ``ffmpeg`` command, one file after the other, its threads as it likes."""
    import imageio_ffmpeg

    size = 3 * SIDE * SIDE
    total = 0
    for path in paths:
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path)]
        command += ["-vf", f"fps={FPS},scale={SIDE}:{SIDE}:flags=area"]
        command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            while chunk := process.stdout.read(size):
                total += len(chunk)
    return total // size


def with_read_videos(paths: Sequence[Path]) -> int:
    """``ray.data.read_videos``."""
    names = [str(path) for path in paths]
    found = ray.data.read_videos(names, fps=FPS, resize=(SIDE, SIDE))
    batches = found.iter_batches(batch_size=None, batch_format="pyarrow")
    return sum(len(batch) for batch in batches)


def with_daft(paths: Sequence[Path]) -> int:
    """``daft.read_video_frames``."""
    import daft

    names = [str(path) for path in paths]
    found = daft.read_video_frames(names, SIDE, SIDE, sample_interval_seconds=1 / FPS)
    return sum(len(part) for part in found.iter_partitions())


def timed(side: Callable[[Sequence[Path]], Any], paths: Sequence[Path]) -> tuple[float, Any]:
    """Seconds, and what the side returned."""
    started = time.perf_counter()
    out = side(paths)
    return time.perf_counter() - started, out


def alone(path: Path) -> dict[str, int]:
    """``ours`` in a process and a cluster of its own, so that peak memory is its own."""
    command = [sys.executable, "-m", "bench.decode", "--one", str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    out: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return out


def measure(quick: bool) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """All comparisons; peers that are not installed are named and left out."""
    runs, length_min = (2, 2) if quick else (5, 8)
    sides: dict[str, Callable[[Sequence[Path]], Any]] = {
        "ours": ours,
        "ffmpeg": with_ffmpeg,
        "read_videos": with_read_videos,
        "daft": with_daft,
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        hd, small = make(HD, folder), make(SMALL, folder)
        count = length_min * 60 // HD.seconds
        long = repeated(hd, count, folder / "long.mp4")
        short = short_ones(hd, count, folder / "short")
        seconds: dict[str, list[float]] = {}
        frames: dict[str, int] = {}
        skipped: dict[str, str] = {}
        read = 0
        with connected():
            for number in range(runs + 1):
                for side, call in sides.items():
                    for kind, paths in (("long", [long]), ("short", short)):
                        if side in skipped:
                            continue
                        if side == "read_videos" and kind == "long":
                            continue  # holds the whole video's frames in one task
                        try:
                            took, out = timed(call, paths if number else paths[:1])
                        except ImportError as failure:
                            skipped[side] = f"not installed: {failure}"
                            continue
                        if number == 0:
                            continue
                        if side == "ours":
                            out, read = out["frames"], out["bytes"]
                        frames[f"{side} {kind}"] = out
                        seconds.setdefault(f"{side} {kind}", []).append(took)
        size = sum(path.stat().st_size for path in short)
        spans = {
            minute: repeated(small, 2 * minute, folder / f"{minute}.mp4") for minute in (10, 180)
        }
        peaks = {minute: alone(path)["peak"] for minute, path in spans.items()}
        total_s = seconds_of(long)

    def ratios_of(a: str, b: str) -> dict[str, float]:
        return ratio([x / y for x, y in zip(seconds[a], seconds[b], strict=True)])

    ratios = {"one_long_over_many_short": ratios_of("ours short", "ours long")}
    for side in ("ffmpeg", "read_videos", "daft"):
        if side not in skipped:
            ratios[f"over_{side}"] = ratios_of(f"{side} short", "ours short")
    ratios["memory_3h_over_10min"] = ratio([peaks[180] / peaks[10]])
    ratios["bytes_over_object"] = ratio([read / size])
    settings = {"fps": FPS, "side": SIDE, "seconds": total_s, "codec": "h264 1280x720, B-frames"}
    times_real = {name: [total_s / s for s in values] for name, values in seconds.items()}
    figures = {
        "times_real_time": times_real,
        "frames": frames,
        "peak_bytes": {f"{minute} min": peak for minute, peak in peaks.items()},
        "skipped": skipped,
    }
    return settings, ratios, figures


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        with connected():
            print(json.dumps(ours([Path(sys.argv[2])])))
    else:
        run("decode", measure)
