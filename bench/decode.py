"""Decoding on the time grid beside what others offer for it: ``python -m bench.decode --json``.

Every side takes the same files at two frames a second to RGB on all cores, in turn, after a round
that is not counted. The ``bench`` extra brings the peers and an ``ffmpeg`` command; NeMo Curator is
taken along where it is installed.
"""

from __future__ import annotations

import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import boto3
import ray

from bench.decoder import SIDE, Decoder
from bench.footage import HD, SMALL, rendered, repeated, seconds_of, short_ones
from bench.harness import most_resident_bytes, ratio, run
from infra.faultyproxy import FaultyProxy
from infra.objectstore import ObjectStore
from longreel.schemas import PLAN
from pipelines.cluster import connected
from pipelines.ids import Recipe
from pipelines.passes import in_batches, through
from pipelines.plan import plan_all
from pipelines.resources import cores
from pipelines.sources import expand_sources

FPS = 2
RECIPE = Recipe("bench", "bench", "bench", 0.2, float(FPS), 30.0, 0.0)
#: Minutes of the two videos whose decoding must need the same memory.
SHORT_MIN, LONG_MIN = 10, 180

Side = Callable[[Sequence[str]], int]
Timed = dict[str, dict[str, Any]]


def decoded(uris: Sequence[str]) -> list[dict[str, int]]:
    """Plan and decode through Ray Data, as a job does; the rows of ``Decoder``."""
    sources = expand_sources(uris)
    _, plan = plan_all(sources.videos, RECIPE)
    done = through(Decoder, (), in_batches(plan, cores(), largest=16), PLAN, cores())
    batches = done.iter_batches(batch_size=None, batch_format="pyarrow")
    return [row for rows in batches for row in rows.to_pylist()]


def ours(paths: Sequence[str]) -> int:
    """Frames by this project."""
    return sum(row["frames"] for row in decoded(paths))


def with_ffmpeg(paths: Sequence[str]) -> int:
    """Frames by the ``ffmpeg`` command, one file after the other, its threads as it likes."""
    import imageio_ffmpeg

    size = 3 * SIDE * SIDE
    total = 0
    for path in paths:
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", path]
        command += ["-vf", f"fps={FPS},scale={SIDE}:{SIDE}:flags=area"]
        command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            while chunk := process.stdout.read(size):
                total += len(chunk)
    return total // size


def references_alone(paths: Sequence[str]) -> int:
    """Pictures that others refer to, a task a file with one thread: decoded, no more.

    What a grid point shows is made from them, so that what is exact leaves out few of them: those
    at the end of a GOP that no grid point needs any more.
    """
    return sum(ray.get([_references.remote(path) for path in paths]))


@ray.remote(num_cpus=1)
def _references(path: str) -> int:
    with av.open(path) as container:
        context = container.streams.video[0].codec_context
        context.thread_count, context.skip_frame = 1, "NONREF"
        return sum(1 for _ in container.decode(video=0))


def with_read_videos(paths: Sequence[str]) -> int:
    """Frames by ``ray.data.read_videos`` with its own sampling and scaling, a task a file."""
    return _read(paths, fps=FPS, resize=(SIDE, SIDE))


def with_read_videos_alone(paths: Sequence[str]) -> int:
    """Frames by ``ray.data.read_videos`` as it is called without options: all, at full size."""
    return _read(paths)


def _read(paths: Sequence[str], **options: Any) -> int:
    import decord  # noqa: F401 - what it decodes with

    found = ray.data.read_videos(list(paths), **options)
    batches = found.iter_batches(batch_size=None, batch_format="pyarrow")
    return sum(len(batch) for batch in batches)


def with_daft(paths: Sequence[str]) -> int:
    """Frames by ``daft.read_video_frames``, one file after the other.

    Given several, its tasks wait for each other for ever on two cores: all of them decode on one
    event loop (Daft's pull request 7265). So nothing that it would do side by side is lost.
    """
    # Else it takes the cluster that is there for the other sides.
    os.environ["DAFT_RUNNER"] = "native"
    import daft

    found = (
        daft.read_video_frames(path, SIDE, SIDE, sample_interval_seconds=1 / FPS) for path in paths
    )
    return sum(len(part) for frames in found for part in frames.iter_partitions())


def with_nemo_curator(paths: Sequence[str]) -> int:
    """Frames by NeMo Curator's frame extraction, a Ray task a file; not scaled, which spares it."""
    from nemo_curator.utils import decoder_utils  # noqa: F401 - whether it is there

    return sum(ray.get([_nemo_frames.remote(path) for path in paths]))


@ray.remote(num_cpus=1)
def _nemo_frames(path: str) -> int:
    from nemo_curator.utils.decoder_utils import FrameExtractionPolicy, extract_frames

    content = io.BytesIO(Path(path).read_bytes())
    policy = FrameExtractionPolicy.sequence
    return len(extract_frames(content, policy, sample_rate_fps=FPS, num_threads=1))


SIDES: dict[str, Side] = {
    "ours": ours,
    "ffmpeg": with_ffmpeg,
    "read_videos": with_read_videos,
    "daft": with_daft,
    "nemo_curator": with_nemo_curator,
}
#: In ``figures``: what no side can do without.
REFERENCES = "reference pictures"


def timed(runs: int, clip: str, long: str, short: Sequence[str]) -> tuple[Timed, dict[str, str]]:
    """How many times faster than real time each side is, on many short files.

    Ours also on the long one; ``read_videos`` without options on one clip alone, for it would fill
    the memory with more; and the pictures that others refer to, which is no side but a limit.

    Returns:
        By side (``ours long`` for the long one, ``REFERENCES`` for the limit) ``times_real_time``
        of each run and ``frames``; and the sides that cannot run here with the reason.
    """
    todo: dict[str, tuple[Side, Sequence[str]]] = {
        side: (call, short) for side, call in SIDES.items()
    }
    todo["ours long"] = (ours, [long])
    todo["read_videos alone"] = (with_read_videos_alone, [clip])
    todo[REFERENCES] = (references_alone, short)
    found: Timed = {}
    skipped: dict[str, str] = {}
    with connected("local"):
        for number in range(runs + 1):
            for name, (call, paths) in todo.items():
                if name in skipped:
                    continue
                started = time.perf_counter()
                try:
                    frames = call(paths if number else [clip])
                except ImportError as failure:
                    skipped[name] = f"not installed: {failure}"
                    continue
                if number:
                    took = found.setdefault(name, {"times_real_time": [], "frames": frames})
                    seconds = time.perf_counter() - started
                    took["times_real_time"].append(sum(map(seconds_of, paths)) / seconds)
    return found, skipped


def peak_of(uri: str, variables: Mapping[str, str] | None = None) -> int:
    """Peak memory of driver and decoders over one video, in a cluster of their own, in bytes."""
    command = [sys.executable, "-m", "bench.decode", "--one", uri]
    environment = {**os.environ, **(variables or {})}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return int(json.loads(done.stdout.splitlines()[-1])["peak"])


def _one(uri: str) -> None:
    with connected("local"):
        peaks: dict[int, int] = {}
        for row in decoded([uri]):
            peaks[row["pid"]] = max(peaks.get(row["pid"], 0), row["peak"])
    print(json.dumps({"peak": most_resident_bytes() + sum(peaks.values())}))


def bytes_read(path: Path) -> int:
    """What a store sends for planning and decoding the object at ``path``, in bytes."""
    with ObjectStore() as store, FaultyProxy(store.endpoint_url) as proxy:
        variables = {**store.environment(), **proxy.environment()}
        client = boto3.client(
            "s3",
            endpoint_url=store.endpoint_url,
            aws_access_key_id=store.access_key,
            aws_secret_access_key=store.secret_key,
            region_name=store.region,
        )
        client.create_bucket(Bucket="bench")
        client.upload_file(str(path), "bench", path.name)
        peak_of(f"s3://bench/{path.name}", variables)
        return proxy.bytes_sent(path.name)


def measure(quick: bool) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """All comparisons; sides that are not installed are named and left out."""
    # Of two minutes, the start of the actors, which ffmpeg has none of, is a large part.
    runs, minutes = (1, 6) if quick else (5, 16)
    # What memory a video needs depends on its length, and not on its pictures.
    scene = replace(SMALL, fps=5) if quick else SMALL
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        hd, small = rendered(HD), rendered(scene)
        minute = repeated(hd, 60 // HD.seconds, folder / "minute.mp4")
        short = [str(path) for path in short_ones(minute, minutes, folder / "short")]
        long = repeated(minute, minutes, folder / "long.mp4")
        total_s = seconds_of(long)
        found, skipped = timed(runs, str(hd), str(long), short)
        lengths = {
            length: str(repeated(small, 60 * length // scene.seconds, folder / f"{length}.mp4"))
            for length in (SHORT_MIN, LONG_MIN)
        }
        peaks: dict[int, list[int]] = {length: [] for length in lengths}
        for _ in range(1 if quick else 3):
            for length, path in lengths.items():
                peaks[length].append(peak_of(path))
        read = {"object": long.stat().st_size, "read": bytes_read(long)}

    def over(side: str, base: str) -> dict[str, float]:
        pairs = zip(found[side]["times_real_time"], found[base]["times_real_time"], strict=True)
        return ratio([fast / slow for fast, slow in pairs])

    ratios = {
        f"over_{side.replace(' ', '_')}": over("ours", side)
        for side in found
        if not side.startswith("ours") and side != REFERENCES
    }
    ratios["one_long_over_many_short"] = over("ours long", "ours")
    ratios["memory_3h_over_10min"] = ratio(
        [most / least for most, least in zip(peaks[LONG_MIN], peaks[SHORT_MIN], strict=True)]
    )
    ratios["bytes_over_object"] = ratio([read["read"] / read["object"]])
    settings = {
        "fps": FPS,
        "side": SIDE,
        "seconds": total_s,
        "files": minutes,
        "codec": f"h264 {HD.width}x{HD.height}, x264's default B-frames",
        "bits_per_s": round(8 * read["object"] / total_s),
    }
    figures = {
        "times_real_time": {side: took["times_real_time"] for side, took in found.items()},
        "frames": {side: took["frames"] for side, took in found.items()},
        "peak_bytes": {f"{length} min": found for length, found in peaks.items()},
        "store_bytes": read,
        "skipped": skipped,
    }
    # What all cores decode where nothing is left out, and where nothing is done that need not be.
    limits = {"ffmpeg_on_all_cores": "ffmpeg", "references_on_all_cores": REFERENCES}
    figures["limits"] = {
        name: statistics.median(found[side]["times_real_time"])
        for name, side in limits.items()
        if side in found
    }
    return settings, ratios, figures


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        _one(sys.argv[2])
    else:
        run("decode", measure)
