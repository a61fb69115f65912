"""Runs the real command as a user does, and the folder of good and bad videos that it is given."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.videos import (
    HEALTHY,
    Clip,
    damage,
    truncate,
    write_audio_only,
    write_video,
    x264,
)

JOB_TIMEOUT_S = 300.0
OPTIONS = ("--model", "longreel-tiny", "--segment-seconds", "4")
FPS = 2.0
#: What must never stand in what a user sees.
NOISE = ("Traceback", "(raylet)", "WARNING", "core_worker", "logging.cc", "site-packages")
#: Variable that a command's processes inherit, to find them by.
MARK = "LONGREEL_TEST_MARK"
#: What two runs may differ in: who did it when, and how long it took.
OWN = ("job_id", "decode_s", "model_s", "attempt")
#: The parts of a result and the column that names a row of each.
PARTS = {"segments": "segment_id", "videos": "video_id"}
#: What the title of a process says while it has a role in a job.
ROLES = {
    "planner": "_plan_batch",
    "controller": "ray::ServeController",
    "replica": "ServeReplica:longreel:replica",
    "worker": "(SegmentWorker)",
    "ledger": "Ledger",
    "reducer": "(VideoReducer)",
}

Row = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One finished command."""

    code: int
    out: str
    err: str
    took_s: float

    @property
    def said(self) -> str:
        return f"exit {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


@dataclass(frozen=True)
class Sources:
    """A folder with healthy clips and with files that are bad in one way each."""

    folder: Path
    good: dict[str, Clip]
    bad: dict[str, Path]
    missing: Path

    @property
    def arguments(self) -> list[str]:
        """The folder, a file that is not there, and one file of the folder a second time."""
        return [str(self.folder), str(self.missing), str(self.good["b.mp4"].path)]

    @property
    def names(self) -> list[str]:
        return sorted([*self.good, *self.bad, self.missing.name])


def make_sources(folder: Path) -> Sources:
    """The videos; names hold what shells, globs and URLs treat specially."""
    (folder / "sub").mkdir(parents=True)
    long = write_video(
        folder / "long.mp4",
        n_frames=600,
        options=x264(),
        container_options={"movflags": "+faststart"},
    )
    clips = [
        long,
        write_video(folder / "b.mp4", options=x264()),
        write_video(folder / "r90.mp4", n_frames=50, options=x264(), rotation=90),
        write_video(folder / "late [1].mp4", options=x264(), shift_s=Fraction(36, 10), audio_s=5.0),
        HEALTHY["single_frame"](folder / "sub"),
    ]
    vp9 = HEALTHY["vp9_webm"](folder)
    vp9 = Clip(vp9.path.rename(folder / "vp9 100% ü#?.webm"), vp9.shown_s, vp9.numbers, vp9.end_s)
    r90 = clips[2]
    copied = Path(shutil.copy(r90.path, folder / "really_mp4.avi"))
    clips += [vp9, Clip(copied, r90.shown_s, r90.numbers, r90.end_s, r90.rotation)]

    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("This is no video.\n" * 200)
    write_audio_only(folder / "sound.mp4")
    truncate(clips[1], folder / "nomoov.mp4", 0.5)
    truncate(long, folder / "cut.mp4", 0.4)
    damage(clips[1], folder / "damaged.mp4", 0.45, 1500)
    (folder / "dangling.mp4").symlink_to(folder / "nowhere.mp4")
    bad = ["empty", "text", "sound", "nomoov", "cut", "damaged", "dangling"]
    return Sources(
        folder,
        {clip.path.name: clip for clip in clips},
        {f"{name}.mp4": folder / f"{name}.mp4" for name in bad},
        folder.parent / "none.mp4",
    )


def longreel(
    *arguments: str, timeout_s: float = JOB_TIMEOUT_S, variables: Mapping[str, str] | None = None
) -> Run:
    """Runs the command to its end in a session of its own."""
    with started(*arguments, variables=variables) as process:
        return ended(process, timeout_s)


def ended(process: subprocess.Popen[str], timeout_s: float = JOB_TIMEOUT_S) -> Run:
    """Waits for a command's end."""
    before = time.monotonic()
    out, err = process.communicate(timeout=timeout_s)
    return Run(process.returncode, out, err, time.monotonic() - before)


@contextmanager
def started(
    *arguments: str, mark: str = "", variables: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """The running command; what is left of its process group is killed at the end."""
    environment = {**os.environ, MARK: mark}
    for name in list(environment):
        if name.startswith(("RAY_", "LONGREEL_")) and name != MARK:
            del environment[name]
    environment |= variables or {}
    process = subprocess.Popen(
        [sys.executable, "-m", "longreel.cli", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        kill_group(process)


def kill_group(process: subprocess.Popen[str]) -> None:
    """Kills the command and its process group, as a machine's out-of-memory killer might."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def marked(mark: str) -> dict[int, str]:
    """Processes that a command started with this mark has left: command lines by pid."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
            if f"{MARK}={mark}".encode() in environment:
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                if words:  # a zombie has none
                    found[int(entry.name)] = words.decode(errors="replace")[:200]
        except OSError:
            continue
    return found


def acting(mark: str, role: str) -> list[int]:
    """Processes of a command that have a role now."""
    return [pid for pid, title in marked(mark).items() if ROLES[role] in title]


def gone(mark: str, within_s: float) -> dict[int, str]:
    """Waits for a command's processes to end; kills and returns those that did not."""
    deadline = time.monotonic() + within_s
    while (left := marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.5)
    for pid in left:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return left


def table(dest: Path, part: str) -> pa.Table:
    """All rows of one part of what a job wrote, read with pyarrow alone."""
    return pq.ParquetDataset(str(dest / part)).read()


def rows(dest: Path, part: str) -> list[Row]:
    return list(table(dest, part).to_pylist())


def content(found: list[Row], key: str) -> dict[str, Row]:
    """Rows without what each run has of its own, by id; fails when an id stands twice."""
    named = {row[key]: {k: v for k, v in row.items() if k not in OWN} for row in found}
    assert len(named) == len(found), f"{len(found)} rows, {len(named)} ids"
    return named


def assert_same_rows(dest: Path, undisturbed: Path) -> None:
    """Fails unless both hold the same rows and schemas, and the same kinds of readable files."""
    for part, key in PARTS.items():
        mine, theirs = content(rows(dest, part), key), content(rows(undisturbed, part), key)
        assert mine.keys() == theirs.keys(), (len(mine), len(theirs))
        other = [
            (k, field, value, theirs[k][field])
            for k, row in mine.items()
            for field, value in row.items()
            if value != theirs[k][field]
        ]
        assert not other, f"{len(other)} values differ, the first: {other[0]}"
        assert table(dest, part).schema.equals(table(undisturbed, part).schema)
    assert _kinds(dest) == _kinds(undisturbed)
    for path in dest.rglob("*.parquet"):
        pq.ParquetFile(path).read()


def _kinds(dest: Path) -> set[str]:
    """The files under a result, hidden ones included, parts of one folder counted as one."""
    return {re.sub(r"part-[\w-]+\.parquet$", "part.parquet", name) for name in state_of(dest)}


def name_of(row: Row) -> str:
    return str(row["uri"]).rsplit("/", 1)[-1]


def by_name(found: Sequence[Row]) -> dict[str, Row]:
    """One row per file name; fails when two rows share one."""
    named = {name_of(row): row for row in found}
    assert len(named) == len(found), sorted(name_of(row) for row in found)
    return named


def segments_of(found: Sequence[Row], name: str) -> list[Row]:
    """Rows of one video's segments, in order."""
    return sorted((r for r in found if name_of(r) == name), key=lambda r: int(r["segment_index"]))


def state_of(dest: Path) -> dict[str, tuple[int, int]]:
    """Every file under a result: its size and when it was written."""
    return {
        str(path.relative_to(dest)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(dest.rglob("*"))
        if path.is_file()
    }


def complaint(run: Run) -> str:
    """The one line with which a command refuses; fails when there is more or other."""
    lines = [line for line in run.err.splitlines() if line.strip() and line != "finding videos"]
    assert len(lines) == 1, run.said
    assert not run.out.strip(), run.said
    return lines[0]
