"""Where seconds and bytes of a whole job go: ``python -m bench.profile --json``.

The job is ``longreel summarize`` over one hour of 720p (five minutes with ``--quick``), as a user
runs it, with a cluster of its own. ``--before CHECKOUT`` runs another version of it in turn.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow.parquet as pq

from bench import timed
from bench.footage import HD, MINUTE, Scene, rendered, repeated
from bench.harness import ratio, run
from bench.timed import Total, read_totals
from bench.watched import Watch

HERE = Path(__file__).parent.parent
_MARK = "LONGREEL_BENCH_RUN"
#: The parts of a job's wall time, one after the other: each ends when a stage first begins or last
#: ends in any process, or with the process.
WALL = {
    "command and imports": ("start of Ray", "first"),
    "start of Ray": ("start of Ray", "last"),
    "probe and plan": ("plan", "last"),
    "start of decoding actors": ("sample, the rest", "first"),
    "first segment and the model": ("vision encoder", "first"),
    "decode and narrate": ("hand rows over", "last"),
    "last rows": ("narrate", "last"),
    "reduce": ("reduce", "last"),
    "shutdown": None,
}
#: Stages of the driver that only wait for what others do.
_WAITING = ("start of Ray", "plan", "start of the model service", "narrate", "reduce", "disconnect")
#: Columns in which two runs over the same videos may differ.
_OWN = ("job_id", "decode_s", "model_s", "attempt")


@dataclass(frozen=True)
class Job:
    """One finished job.

    Attributes:
        wall_s: seconds by part of ``WALL``; they are all of its time.
        busy_s: processor seconds of all processes in each part.
        stages: what was timed inside, over all processes.
        cpu_s, peak_bytes: by kind of process.
        store_bytes: the most of Ray's object store that one process had touched.
        output_bytes: files of the output.
        rows: hash of the rows, but for what each run has of its own.
    """

    wall_s: dict[str, float]
    busy_s: dict[str, float]
    stages: dict[str, Total]
    cpu_s: dict[str, float]
    peak_bytes: dict[str, int]
    store_bytes: int
    output_bytes: int
    rows: str

    @property
    def total_s(self) -> float:
        """Wall time."""
        return sum(self.wall_s.values())

    @property
    def total_cpu_s(self) -> float:
        """Processor time of all processes."""
        return sum(self.cpu_s.values())


def video_of(scene: Scene, minutes: int) -> Path:
    """The video, made when it is not there yet: a scene, its packets repeated."""
    clip = rendered(scene)
    path = clip.with_name(f"{minutes}min.mp4")
    if not path.exists():
        draft = path.with_name(f".{uuid.uuid4().hex}.mp4")
        repeated(clip, 60 * minutes // scene.seconds, draft).rename(path)
    return path


def job_over(video: Path, checkout: Path) -> Job:
    """Run a checkout's ``longreel summarize`` in processes of its own.

    Raises:
        RuntimeError: it failed; says what it said.
    """
    with tempfile.TemporaryDirectory() as name:
        output, times = Path(name) / "rows", Path(name) / "times"
        hook = Path(name) / "hook"
        times.mkdir()
        hook.mkdir()
        shutil.copy(timed.__file__, hook / "sitecustomize.py")
        mark = uuid.uuid4().hex
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
            "PYTHONPATH": f"{hook}{os.pathsep}{checkout}",
            timed.VARIABLE: str(times),
            _MARK: mark,
        }
        command = [sys.executable, "-m", "longreel.cli", "summarize", str(video), "-o", str(output)]
        began = time.time()
        with Watch(_MARK, mark) as watch:
            done = subprocess.run(
                command, capture_output=True, text=True, env=environment, cwd=checkout
            )
            ended = time.time()
        if done.returncode:
            raise RuntimeError(f"the job failed ({done.returncode}): {done.stderr.strip()}")
        stages = read_totals(times)
        parts = wall_parts(stages, began, ended)
        return Job(
            wall_s={part: until - since for part, (since, until) in parts.items()},
            busy_s={
                part: watch.use.cpu_until(until) - watch.use.cpu_until(since)
                for part, (since, until) in parts.items()
            },
            stages=stages,
            cpu_s=dict(watch.use.cpu_s),
            peak_bytes=dict(watch.use.peak_bytes),
            store_bytes=watch.use.store_bytes,
            output_bytes=sum(p.stat().st_size for p in output.rglob("*") if p.is_file()),
            rows=hash_of_rows(output),
        )


def wall_parts(
    stages: Mapping[str, Total], began: float, ended: float
) -> dict[str, tuple[float, float]]:
    """When each part of ``WALL`` began and ended, in seconds since 1970.

    Args:
        began, ended: of the command.

    Raises:
        KeyError: a stage that ends a part was never come to.
    """
    parts = {}
    at = began
    for part, mark in WALL.items():
        until = ended if mark is None else float(getattr(stages[mark[0]], mark[1]))
        parts[part] = at, until
        at = until
    return parts


def hash_of_rows(output: Path) -> str:
    """Of a job's segment and video rows, in the order of their ids."""
    digest = hashlib.sha256()
    for part, key in (("segments", "segment_id"), ("videos", "video_id")):
        rows = pq.ParquetDataset(str(output / part)).read().drop_columns(_own(part)).to_pylist()
        digest.update(repr(sorted(rows, key=lambda row: row[key])).encode())
    return digest.hexdigest()


def _own(part: str) -> list[str]:
    return [name for name in _OWN if part == "segments" or name != "attempt"]


def figures_of(jobs: Sequence[Job]) -> dict[str, Any]:
    """Medians over some runs of the same job."""

    def over(values: Sequence[Mapping[str, float]]) -> dict[str, float]:
        names = dict.fromkeys(name for each in values for name in each)
        return {name: median([each.get(name, 0) for each in values]) for name in names}

    names = dict.fromkeys(stage for job in jobs for stage in job.stages)
    stages = {
        stage: {
            field: median([float(getattr(job.stages[stage], field)) for job in jobs])
            for field in ("calls", "wall_s", "cpu_s", "n_bytes")
        }
        for stage in names
        if all(stage in job.stages for job in jobs)
    }
    first = jobs[0]
    return {
        "total_s": [job.total_s for job in jobs],
        "total_cpu_s": [job.total_cpu_s for job in jobs],
        "wall_s": over([job.wall_s for job in jobs]),
        "busy_s": over([job.busy_s for job in jobs]),
        "stages": {stage: found for stage, found in stages.items() if stage not in _WAITING},
        "cpu_s": over([job.cpu_s for job in jobs]),
        "peak_bytes": over([job.peak_bytes for job in jobs]),
        "bytes": {
            "read from the store": first.stages["read"].n_bytes,
            "frames handed over": first.stages["hand frames over"].n_bytes,
            "object store touched": max(job.store_bytes for job in jobs),
            "written": first.stages["write"].n_bytes,
            "output": first.output_bytes,
        },
    }


def printed(figures: Mapping[str, Any]) -> str:
    """The table for people."""
    total, cpu = sum(figures["wall_s"].values()), sum(figures["cpu_s"].values())
    lines = [f"{'wall time':<34}{'s':>9}{'share':>8}{'cores':>8}"]
    for name, seconds in figures["wall_s"].items():
        busy = figures["busy_s"][name] / max(seconds, 0.1)
        lines.append(f"  {name:<32}{seconds:>9.2f}{seconds / total:>8.1%}{busy:>8.2f}")
    lines += [f"  {'all':<32}{total:>9.2f}", ""]
    lines.append(f"{'processes':<34}{'cpu s':>9}{'share':>8}{'peak MiB':>10}")
    for name, seconds in sorted(figures["cpu_s"].items(), key=lambda each: -each[1]):
        peak = figures["peak_bytes"].get(name, 0) / 2**20
        lines.append(f"  {name:<32}{seconds:>9.2f}{seconds / cpu:>8.1%}{peak:>10.0f}")
    lines += [f"  {'all':<32}{cpu:>9.2f}", ""]
    lines.append(f"{'stages inside them':<34}{'cpu s':>9}{'share':>8}{'wall s':>10}{'calls':>10}")
    for name, stage in sorted(figures["stages"].items(), key=lambda each: -each[1]["cpu_s"]):
        share = f"{stage['cpu_s'] / cpu:>8.1%}{stage['wall_s']:>10.2f}{stage['calls']:>10.0f}"
        lines.append(f"  {name:<32}{stage['cpu_s']:>9.2f}{share}")
    lines += ["", f"{'bytes':<34}{'MB':>9}"]
    lines += [f"  {name:<32}{count / 1e6:>9.1f}" for name, count in figures["bytes"].items()]
    return "\n".join(lines)


def measure(
    quick: bool, before: Path | None = None
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Run the job several times, the other version of it in turn."""
    # The short form's scene is there already where other benches ran.
    minutes, runs, scene = (5, 1, HD) if quick else (60, 3, MINUTE)
    video = video_of(scene, minutes)
    checkouts = {"after": HERE} | ({"before": before} if before else {})
    found: dict[str, list[Job]] = {side: [] for side in checkouts}
    for number in range(runs):
        # Neither is always the first.
        for side in list(checkouts)[:: 1 if number % 2 else -1]:
            found[side].append(job_over(video, checkouts[side]))
    ours = found["after"]
    n_bytes, seconds = video.stat().st_size, 60 * minutes
    ratios = {
        "video_seconds_per_second": ratio([seconds / job.total_s for job in ours]),
        "video_seconds_per_cpu_second": ratio([seconds / job.total_cpu_s for job in ours]),
        "bytes_over_object": ratio([job.stages["read"].n_bytes / n_bytes for job in ours]),
    }
    figures: dict[str, Any] = {"after": figures_of(ours)}
    if before:
        theirs = found["before"]
        pairs = list(zip(ours, theirs, strict=True))
        ratios["after_over_before"] = ratio([a.total_s / b.total_s for a, b in pairs])
        ratios["cpu_after_over_before"] = ratio([a.total_cpu_s / b.total_cpu_s for a, b in pairs])
        figures["before"] = figures_of(theirs) | {"commit": _commit_of(before)}
        figures["same_rows"] = len({job.rows for jobs in found.values() for job in jobs}) == 1
    for side, each in figures.items():
        if side in found:
            print(f"{side}\n\n{printed(each)}\n")
    settings = {
        "minutes": minutes,
        "runs": runs,
        "bytes": n_bytes,
        "codec": f"h264 {scene.width}x{scene.height} at {scene.fps} fps, as x264 makes it",
        "model": "longreel-tiny",
    }
    return settings, ratios, figures


def _commit_of(checkout: Path) -> str:
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def _other_checkout() -> Path | None:
    """What ``--before`` names, taken off the command line."""
    if "--before" not in sys.argv:
        return None
    at = sys.argv.index("--before")
    _, named = sys.argv[at : at + 2]
    del sys.argv[at : at + 2]
    return Path(named).resolve()


if __name__ == "__main__":
    other = _other_checkout()
    run("profile", lambda quick: measure(quick, other))
