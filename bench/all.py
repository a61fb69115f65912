"""Every bench that this machine can run, one after the other, and then the pages: ``python -m
bench.all [--quick]``.

Each is a process of its own with a time limit. One that fails, or takes longer, stops nothing: it
is named at the end, and the command ends with status 1.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

BENCH = Path(__file__).parent
#: Seconds for the quick form of all benches together, and of one of them.
QUICK_S, QUICK_ONE_S = 27 * 60.0, 10 * 60.0
#: Seconds for the full form of one.
FULL_ONE_S = 3 * 3600.0
#: Cheap ones first, so that a slow machine has as much as it can; those that are not named here
#: come last.
FIRST = ("flops", "autoscale", "engine", "decode", "scale", "hostile", "serve", "model", "weights")
#: Whose quick form is no quicker: what they give is always in full.
WHOLE = frozenset({"flops"})
#: Needs a GPU.
ON_GPU = frozenset({"large"})
#: What is written from the results at the end.
PAGES: tuple[tuple[str, ...], ...] = (
    ("plots", "bench.plots"),
    ("capacity page", "bench.capacity", "--page", "docs/capacity.md"),
    ("benchmarks page", "bench.page"),
)
#: How long a bench that was told to end may take to stop what it started.
_GRACE_S = 30.0


@dataclass(frozen=True)
class Ended:
    """How one step went.

    Attributes:
        failed: why it did not do what it should; None where it did.
    """

    name: str
    seconds: float
    failed: str | None


def benches(folder: Path = BENCH) -> list[str]:
    """Names of all benches: the modules that hand themselves to ``bench.harness.run``."""
    found = {
        path.stem
        for path in folder.glob("*.py")
        if re.search(rf'^ +run\("{path.stem}", ', path.read_text(), re.MULTILINE)
    }
    return [name for name in FIRST if name in found] + sorted(found - set(FIRST))


def run_step(
    name: str, command: Sequence[str], limit_s: float, environment: Mapping[str, str]
) -> Ended:
    """Run one command to its end or its limit; print what it said, its last lines if it failed."""
    started = time.monotonic()
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        process = subprocess.Popen(
            command,
            stdout=said,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            cwd=BENCH.parent,
            start_new_session=True,
        )
        try:
            status: int | None = process.wait(timeout=max(0.0, limit_s))
        except subprocess.TimeoutExpired:
            status = None
        finally:
            _end(process)
        seconds = time.monotonic() - started
        said.seek(0)
        lines = [line.rstrip() for line in said if not line.startswith('{"bench":')]
    failed = None
    if status is None:
        failed = f"stopped after {seconds:.0f} s, its limit"
    elif status:
        failed = f"ended with status {status}"
    for line in lines[-20:] if failed else lines:
        print(f"  {line}")
    print(f"  {failed or 'done'}, {seconds:.0f} s", flush=True)
    return Ended(name, seconds, failed)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Stop a process that still runs, and what it started in its session."""
    if process.poll() is None:
        # Ray ends its own processes when its driver is told to.
        process.terminate()
        try:
            process.wait(timeout=_GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _has_gpu() -> bool:
    asked = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    return subprocess.run([sys.executable, "-c", asked], check=False).returncode == 0


def run_benches(names: Sequence[str], quick: bool) -> list[Ended]:
    """Each bench in turn."""
    ended = []
    ends = time.monotonic() + QUICK_S
    with tempfile.TemporaryDirectory(prefix="longreel-bench-") as parts:
        # bench.weights goes on from the model that bench.model trains.
        environment = {"LONGREEL_BENCH_PARTS": os.environ.get("LONGREEL_BENCH_PARTS", parts)}
        for name in names:
            short = quick and name not in WHOLE
            limit = min(QUICK_ONE_S, ends - time.monotonic()) if quick else FULL_ONE_S
            if limit <= 0:
                ended.append(Ended(name, 0.0, "not begun: the time for all is over"))
                continue
            print(f"bench.{name}{' in its short form' if short else ''}", flush=True)
            command = [sys.executable, "-m", f"bench.{name}", "--json"]
            command += ["--quick"] if short else []
            ended.append(run_step(name, command, limit, environment))
    return ended


def main() -> int:
    """The command: 1 where a bench or a page failed."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.all", description="Run every bench, and write the pages."
    )
    parser.add_argument("--quick", action="store_true", help="short forms, half an hour at most")
    parser.add_argument("--only", nargs="+", choices=benches(), metavar="BENCH", help="of all")
    asked = parser.parse_args()
    started = time.monotonic()
    names = [name for name in benches() if not asked.only or name in asked.only]
    left_out = [] if _has_gpu() else [name for name in names if name in ON_GPU]
    ended = run_benches([name for name in names if name not in left_out], asked.quick)
    for name, *module in PAGES:
        print(name, flush=True)
        ended.append(run_step(name, [sys.executable, "-m", *module], QUICK_ONE_S, {}))
    for each in ended:
        print(f"{each.name:<16} {each.seconds:>6.0f} s  {each.failed or 'done'}")
    for name in left_out:
        print(f"{name:<16}           left out: no CUDA device")
    failed = [each.name for each in ended if each.failed]
    minutes = (time.monotonic() - started) / 60
    print(f"{minutes:.1f} minutes; failed: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
