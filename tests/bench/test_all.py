"""Running all benches: what fails or takes too long is named and stops nothing else."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from bench.all import FIRST, ON_GPU, QUICK_ONE_S, QUICK_S, benches, run_step
from bench.claims import CLAIMS
from bench.names import module_and_model


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_every_bench_is_found(tmp_path: Path) -> None:
    """Guards against a bench that ``make bench`` forgets."""
    assert {module_and_model(claim.bench)[0] for claim in CLAIMS} <= set(benches())
    assert set(FIRST) | ON_GPU <= set(benches())
    (tmp_path / "flops.py").write_text('if __name__ == "__main__":\n    run("flops", measure)\n')
    (tmp_path / "added.py").write_text('if __name__ == "__main__":\n    run("added", measure)\n')
    (tmp_path / "helper.py").write_text("def run(name): ...\n")
    assert benches(tmp_path) == ["flops", "added"]


def test_all_fits_half_an_hour() -> None:
    """Guards against limits of single benches that add up to more than was promised."""
    assert QUICK_ONE_S <= QUICK_S
    # Pages take seconds; three minutes are more than they need.
    assert QUICK_S + 180 <= 30 * 60


def test_a_step_that_fails_says_how_it_ended(capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against a bench that fails and is not missed."""
    ended = run_step("x", python("print('why'); raise SystemExit(3)"), 30, {})
    assert ended.failed == "ended with status 3"
    assert "  why" in capsys.readouterr().out
    code = "import os; print(os.environ['A']); print('{\"bench\": 1}')"
    assert run_step("x", python(code), 30, {"A": "given"}).failed is None
    said = capsys.readouterr().out
    assert "  given" in said
    assert "bench" not in said


@pytest.mark.slow
def test_a_step_that_takes_too_long_is_stopped_with_what_it_started(tmp_path: Path) -> None:
    """Guards against processes of a bench that go on beside the next one and spoil its figures."""
    pid = tmp_path / "pid"
    code = (
        "import pathlib, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"pathlib.Path({str(pid)!r}).write_text(str(child.pid))\n"
        "time.sleep(60)\n"
    )
    ended = run_step("x", python(code), 3, {})
    assert ended.failed is not None
    assert "its limit" in ended.failed
    child = int(pid.read_text())
    for _ in range(50):
        if not _runs(child):
            return
        time.sleep(0.1)
    raise AssertionError(f"process {child} still runs")


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
