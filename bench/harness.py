"""What every bench shares: the machine's name, ratios with spread, the JSON it prints and keeps."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.bars import shown
from bench.claims import CLAIMS
from bench.names import of_model
from bench.paths import spread_at

RESULTS = Path(__file__).parent / "results"


def ratio(values: Sequence[float]) -> dict[str, float]:
    """Median, bounds and number of runs of one ratio."""
    return {
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "n": len(values),
    }


def machine() -> dict[str, Any]:
    """Processor, cores and memory of this machine."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text())
        model = found[1] if found else model
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    # Benches without torch shall not wait for it.
    torch: Any = sys.modules.get("torch")
    gpu = {}
    if torch is not None and torch.cuda.is_available():
        gpu = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__}
    return {
        **gpu,
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(pages / 2**30, 1),
        "python": platform.python_version(),
    }


def most_resident_bytes() -> int:
    """The most memory this process has held; ``ru_maxrss`` would begin at what its parent held."""
    status = Path("/proc/self/status").read_text()
    (kib,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
    return 1024 * int(kib)


#: From whether it is to be quick to settings, ratios and figures, as ``--json`` prints them.
Measure = Callable[[bool], tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]


def run(name: str, measure: Measure | Mapping[str, Measure]) -> None:
    """Command line of one bench.

    Args:
        measure: one, or several by the model that ``--model`` names. The first of them is measured
            where it names none, and is the bench itself; the others' results have names of their
            own.
    """
    parser = argparse.ArgumentParser(prog=f"python -m bench.{name}")
    parser.add_argument("--json", action="store_true", help="print and keep the result as JSON")
    parser.add_argument("--quick", action="store_true", help="fewer runs, minutes at most")
    if isinstance(measure, Mapping):
        own, *_ = measure
        parser.add_argument(
            "--model", choices=list(measure), default=own, help=f"{own} unless said"
        )
    args = parser.parse_args()
    if isinstance(measure, Mapping):
        name = name if args.model == own else of_model(name, args.model)
        measure = measure[args.model]
    settings, ratios, figures = measure(args.quick)
    for line in _told(name, {"settings": settings, "ratios": ratios, "figures": figures}):
        print(line)
    if not args.json:
        return
    here = machine()
    result = {
        "bench": name,
        "machine": here,
        "commit": _commit(),
        "settings": {**settings, "quick": args.quick},
        "ratios": ratios,
        "figures": figures,
    }
    named = here.get("gpu") or f"{here['processor']} {here['cores']}c"
    folder = RESULTS / re.sub(r"[^a-z0-9]+", "-", named.lower())
    folder.mkdir(parents=True, exist_ok=True)
    result_path(folder, name, args.quick).write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


def result_path(folder: Path, name: str, quick: bool) -> Path:
    """Where a result belongs: a quick one never takes the place of a full one.

    Args:
        folder: of the machine.
    """
    plain = folder / f"{name}.json"
    full_there = plain.is_file() and not is_quick(json.loads(plain.read_text()))
    return folder / f"{name}.quick.json" if quick and full_there else plain


def is_quick(result: Mapping[str, Any]) -> bool:
    """Whether a result is of the quick form; those from before results said so are full."""
    return bool(result["settings"].get("quick", False))


def _told(bench: str, result: Mapping[str, Any]) -> Iterator[str]:
    """Each ratio, and what else has a bar, with the verdict."""
    bars = {claim.path: claim.bar for claim in CLAIMS if claim.bench == bench and claim.bar}
    for path in dict.fromkeys([*(f"ratios/{key}" for key in result["ratios"]), *bars]):
        found, bar = spread_at(bench, result, path), bars.get(path)
        if found is not None:
            verdict = f"; {bar}: {bar.verdict(found)}" if bar else ""
            yield f"{path.removeprefix('ratios/')}: {shown(found)}{verdict}"


def _commit() -> str | None:
    # Where only the files are, whoever put them there may say which they are.
    named = os.environ.get("LONGREEL_COMMIT")
    try:
        commit = _git("describe", "--always") or named
        # Results of other benches, and pages written from them, are not what was measured.
        but = (f":(exclude){RESULTS.name}", ":(top,exclude)*.md")
        changed = _git("status", "--porcelain", "-uno", ":/", *but)
    except OSError:
        return named
    return f"{commit}-dirty" if commit and changed else commit


def _git(*command: str) -> str:
    done = subprocess.run(["git", *command], capture_output=True, text=True, cwd=RESULTS.parent)
    return done.stdout.strip()
