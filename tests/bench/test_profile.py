"""What the profile says adds up, and comes from the job as it is."""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import timed
from bench.profile import WALL, wall_parts
from bench.timed import POINTS, STAGES, Point, Times, Total, read_totals, wrap
from bench.watched import OTHER, WITHOUT_ROLE, Look, Use, Watch, kind_of

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("point", POINTS, ids=lambda point: f"{point.module}.{point.name}")
def test_what_is_timed_is_there(point: Point) -> None:
    """Guards against a function that is renamed, and from then on costs nothing."""
    found = importlib.import_module(point.module)
    for name in point.name.split("."):
        found = getattr(found, name)
    assert callable(found)


def test_a_stage_is_timed_without_those_inside(tmp_path: Path) -> None:
    """Guards against seconds counted twice, and generators timed while others work."""
    module: Any = importlib.import_module("tests.bench.staged")
    times = Times(tmp_path)
    outer = Point(module.__name__, "Machine.outer", "narrate")
    inner = Point(module.__name__, "inner", "read", lambda call: len(call[1]))
    steps = Point(module.__name__, "steps", "demux")
    originals = module.Machine.outer, module.inner, module.steps
    try:
        for point in (outer, inner, steps):
            wrap(point, module, times)
        assert module.Machine().outer(0.02) == b"three bytes here"
        with pytest.raises(ValueError, match="no bytes"):
            module.inner(-1)
    finally:
        module.Machine.outer, module.inner, module.steps = originals
    found = read_totals(tmp_path)
    assert found.keys() == {"narrate", "read", "demux"}
    assert (found["narrate"].calls, found["read"].calls, found["demux"].calls) == (1, 2, 4)
    assert found["read"].n_bytes == len(b"three bytes here")
    assert found["read"].wall_s >= 0.02
    assert found["demux"].wall_s >= 3 * 0.02
    # Three sleeps of its own, one for each step, and none of the others'.
    assert 3 * 0.02 <= found["narrate"].wall_s < 3 * 0.02 + 0.05
    assert found["narrate"].first <= found["demux"].first <= found["narrate"].last


@pytest.mark.slow
def test_totals_outlive_a_process_that_is_killed(tmp_path: Path) -> None:
    """Guards against workers that Ray kills, and with them what they have done."""
    hook, times = tmp_path / "hook", tmp_path / "times"
    hook.mkdir()
    times.mkdir()
    shutil.copy(timed.__file__, hook / "sitecustomize.py")
    program = (
        "import os, signal\n"
        "from actors.objects import write_bytes\n"
        f"write_bytes({str(tmp_path / 'file')!r}, b'12345')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    paths = f"{hook}{os.pathsep}{REPOSITORY}"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": paths, timed.VARIABLE: str(times)},
    )
    assert done.returncode == -signal.SIGKILL
    found = read_totals(times)
    assert (found["write"].calls, found["write"].n_bytes) == (1, 5)


def test_parts_are_all_of_the_wall_time() -> None:
    """Guards against seconds that no part has, and a profile of a job that did not get there."""
    stages = {stage: Total(1, 1.0, 1.0, 0, 10.0 + i, 20.0 + i) for i, stage in enumerate(STAGES)}
    parts = wall_parts(stages, 5.0, 100.0)
    assert list(parts) == list(WALL)
    times = [5.0, *(until for _, until in parts.values())]
    assert [since for since, _ in parts.values()] == times[:-1]
    assert times[-1] == 100.0
    del stages["hand rows over"]
    with pytest.raises(KeyError):
        wall_parts(stages, 5.0, 100.0)


def test_a_worker_s_time_is_its_role_s() -> None:
    """Guards against actors whose work is laid to Ray, or one role's to the next."""
    use = Use()
    decoding = "ray::MapWorker(MapBatches(SegmentWorker)).submit"
    assert kind_of(decoding) == "decoding actors"
    assert kind_of("ray::IDLE") == WITHOUT_ROLE
    assert kind_of("bash") == OTHER
    use.add(1.0, {7: Look("ray::IDLE", 1.0, 100, 0), 8: Look("ray::IDLE", 0.5, 100, 0)})
    use.add(2.0, {7: Look(decoding, 3.0, 300, 50), 8: Look(decoding, 0.5, 100, 0)})
    use.add(3.0, {7: Look("ray::IDLE", 3.5, 100, 70)})
    assert use.cpu_s == {WITHOUT_ROLE: 1.5, "decoding actors": 2.5}
    assert use.peak_bytes == {WITHOUT_ROLE: 200, "decoding actors": 400}
    assert use.store_bytes == 70
    assert [use.cpu_until(at) for at in (0.5, 1.0, 2.9, 9.0)] == [0.0, 1.5, 3.5, 4.0]


@pytest.mark.slow
def test_processes_are_known_by_what_they_inherit(tmp_path: Path) -> None:
    """Guards against children that are not counted, and strangers that are."""
    spins = "import time\nwhile time.process_time() < 0.6: pass\n"
    nested = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {spins!r}])"
    with Watch("LONGREEL_TEST_WATCHED", tmp_path.name) as watch:
        mine = subprocess.Popen(
            [sys.executable, "-c", nested],
            env={**os.environ, "LONGREEL_TEST_WATCHED": tmp_path.name},
        )
        other = subprocess.Popen(
            [sys.executable, "-c", spins],
            env={**os.environ, "LONGREEL_TEST_WATCHED": "another"},
        )
        assert mine.wait() == other.wait() == 0
    assert 0.3 < sum(watch.use.cpu_s.values()) < 1.0
    assert watch.use.peak_bytes[OTHER] > 2**20
