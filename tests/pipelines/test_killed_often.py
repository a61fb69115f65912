"""Every process of a job killed again and again, at random moments, until the job is through.

``LONGREEL_KILL_SEED`` repeats a sequence; a failing test prints its seed and what it killed.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.pipelines.conftest import Job
from tests.pipelines.job_runs import (
    JOB_TIMEOUT_S,
    NOISE,
    PARTS,
    Row,
    acting,
    assert_same_rows,
    gone,
    longreel,
    make_sources,
    marked,
    rows,
    started,
)
from tests.videos import write_video, x264

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long]

SEED = int(os.environ.get("LONGREEL_KILL_SEED", "2408"))
OPTIONS = ("--fps", "2", "--segment-seconds", "2")
#: Whom a driver's death takes with it: nobody at once, or its whole process group.
DRIVERS = ("driver", "group")


@dataclass(frozen=True)
class Kill:
    """Who dies, and how long after what is first seen: a role at work, rows, or the start."""

    whom: str
    seen: str
    after_s: float


@dataclass
class Killer:
    """Runs one command, kills as told and keeps the book."""

    arguments: list[str]
    log: list[str] = field(default_factory=list)
    hits: Counter[str] = field(default_factory=Counter)
    marks: list[str] = field(default_factory=list)
    noisy: list[str] = field(default_factory=list)

    def run(self, dest: Path, kills: list[Kill]) -> int | None:
        """The exit status of a run that came to an end; None if a kill ended it."""
        mark = uuid.uuid4().hex
        self.marks.append(mark)
        begun = time.monotonic()
        n_files = len(list(dest.glob("segments/*.parquet")))
        with started("summarize", *self.arguments, "-o", str(dest), mark=mark) as process:
            for kill in kills:
                while not _seen(kill, mark, dest, n_files):
                    if process.poll() is not None or time.monotonic() - begun > JOB_TIMEOUT_S:
                        break
                    time.sleep(0.1)
                _pause(process, kill.after_s)
                if process.poll() is not None:
                    break
                self._strike(kill, process, mark, time.monotonic() - begun)
                if kill.whom in DRIVERS:
                    process.wait()
                    return None
            try:
                out, err = process.communicate(timeout=JOB_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                for pid, title in marked(mark).items():
                    self._note(f"  still there: {pid} {title}")
                raise
        took_s = time.monotonic() - begun
        noisy = [noise for noise in NOISE if noise in out + err]
        self.noisy += [out + err] if noisy else []
        last = err.strip().splitlines()[-1:]
        self._note(f"{dest.name}: exit {process.returncode} after {took_s:.1f} s {noisy} {last}")
        return process.returncode

    def _strike(self, kill: Kill, process: subprocess.Popen[str], mark: str, at_s: float) -> None:
        pids = [process.pid] if kill.whom in DRIVERS else acting(mark, kill.whom)
        if pids:
            self.hits[kill.whom] += 1
            if kill.whom == "group":
                os.killpg(process.pid, signal.SIGKILL)
            else:
                os.kill(pids[0], signal.SIGKILL)
        self._note(f"{at_s:5.1f} s: {kill}{'' if pids else ': nobody there'}")

    def _note(self, line: str) -> None:
        self.log.append(line)
        print(line, flush=True)


def _seen(kill: Kill, mark: str, dest: Path, n_files: int) -> bool:
    if kill.seen == "start":
        return True
    if kill.seen == "rows":
        return len(list(dest.glob("segments/*.parquet"))) > n_files
    return bool(acting(mark, kill.seen))


def _pause(process: subprocess.Popen[str], seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Good, bad and long videos, and the job over them that nobody disturbs."""
    sources = make_sources(tmp_path_factory.mktemp("killed_often") / "in put")
    write_video(sources.folder / "minutes.mp4", n_frames=25 * 200, options=x264())
    dest = tmp_path_factory.mktemp("killed_often_rows") / "rows"
    run = longreel("summarize", *sources.arguments, *OPTIONS, "-o", str(dest))
    assert run.code == 3, run.said
    return Job(sources, dest, run)


@pytest.fixture
def killer(reference: Job) -> Iterator[Killer]:
    """Kills for one test; nothing of any of its runs may live on."""
    killer = Killer([*reference.sources.arguments, *OPTIONS])
    print(f"LONGREEL_KILL_SEED={SEED}")
    yield killer
    left = {mark: gone(mark, within_s=60) for mark in killer.marks}
    assert not any(left.values()), f"processes outlive their driver: {left}"


def seen_rows(dest: Path, known: dict[str, Row]) -> dict[str, Row]:
    """Every row that lies there; fails if one known before is gone, changed or there twice."""
    now: dict[str, Row] = {}
    for part, key in PARTS.items():
        found = rows(dest, part) if list(dest.glob(f"{part}/*")) else []
        now |= {f"{part} {row[key]}": row for row in found}
        assert len({row[key] for row in found}) == len(found), f"{part}: an id stands twice"
    assert known.keys() <= now.keys(), f"{len(known.keys() - now.keys())} finished rows are gone"
    assert [name for name in known if known[name] != now[name]] == [], "finished work done again"
    return now


def sequence(rng: random.Random) -> list[list[Kill]]:
    """The kills of one run after the other: each in another phase, each ended by a driver's."""

    def kill(whom: str, seen: str, most_s: float) -> Kill:
        return Kill(whom, seen, round(rng.uniform(0, most_s), 2))

    def inner(*whom: str) -> list[Kill]:
        return [kill(name, name, 4) for name in rng.sample(whom, len(whom))]

    ledger = kill("ledger", "ledger", 4)  # it may take its run with it: it comes last

    drivers = [*DRIVERS] * 4
    rng.shuffle(drivers)
    return [
        [kill(drivers[0], "start", 6)],
        [kill("planner", "planner", 0.3), kill(drivers[1], "planner", 1)],
        [kill(drivers[2], "controller", 5)],
        [*inner("replica", "worker", "worker"), kill(drivers[3], "worker", 5)],
        [*inner("worker", "replica"), ledger, kill(drivers[4], "rows", 3)],
        [*inner("worker", "worker", "replica"), kill(drivers[5], "rows", 3)],
        [*inner("worker"), ledger, kill(drivers[6], "reducer", 2)],
        [kill("reducer", "reducer", 1), kill(drivers[7], "reducer", 2)],
    ]


def test_killed_until_it_is_through(reference: Job, killer: Killer, tmp_path: Path) -> None:
    """Guards against rows lost, written twice or done again, whoever dies and whenever.

    The next run starts at once, while what the killed driver left may still be dying.
    """
    dest = tmp_path / "rows 0"
    known: dict[str, Row] = {}
    runs = [*sequence(random.Random(SEED)), []]
    for number, kills in enumerate(runs):
        code = killer.run(dest, kills)
        known = seen_rows(dest, known)
        if code == reference.run.code:
            assert_same_rows(dest, reference.dest)
            if kills:  # it was faster than the kills: the others get work of their own
                dest, known = tmp_path / f"rows {number + 1}", {}
        else:
            assert kills, "the run that nobody disturbed failed"
    assert min(killer.hits[whom] for whom in DRIVERS) >= 2, killer.hits
    assert min(killer.hits[role] for role in ("worker", "replica")) >= 2, killer.hits
    # A run may be through before its ledger is due to die.
    assert killer.hits["ledger"] >= 1, killer.hits
    assert killer.hits.total() >= 14, killer.hits
    assert not killer.noisy, "\n\n".join(killer.noisy)


@pytest.mark.parametrize("whom", [("worker", "replica", "worker") * 2, ("reducer",)], ids="-".join)
def test_the_run_goes_on_without_them(
    whom: tuple[str, ...], reference: Job, killer: Killer, tmp_path: Path
) -> None:
    """Guards against a run that ends, hangs or loses rows because a worker or replica died."""
    code = killer.run(tmp_path / "rows", _within_one_run(whom))
    assert killer.hits.total() == len(whom), killer.hits
    assert code == reference.run.code, "\n\n".join(killer.noisy)
    assert_same_rows(tmp_path / "rows", reference.dest)
    assert not killer.noisy, "\n\n".join(killer.noisy)


def test_the_ledger_lost(reference: Job, killer: Killer, tmp_path: Path) -> None:
    """Guards against a run that hangs, or says a page of traceback, when nobody writes its rows."""
    code = killer.run(tmp_path / "rows", _within_one_run(("ledger",)))
    assert killer.hits["ledger"] == 1
    assert code in (1, reference.run.code)
    if code == 1:
        assert killer.run(tmp_path / "rows", []) == reference.run.code
    assert_same_rows(tmp_path / "rows", reference.dest)
    assert not killer.noisy, "\n\n".join(killer.noisy)


def _within_one_run(whom: tuple[str, ...]) -> list[Kill]:
    rng = random.Random(SEED)
    return [Kill(role, role, round(rng.uniform(0, 4), 2)) for role in whom]
