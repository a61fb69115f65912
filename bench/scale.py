"""How a job grows with workers: measured with two, simulated up to thousands of nodes.

``python -m bench.scale --json``. Measured is the decoding half of a job's pass. The simulation
takes the costs of the single processes (driver, ledger, reader) from timings made here, and the
library and the cluster from ``bench.assumed``.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import ray

from actors.decode import decode_planned
from bench.assumed import LAYOUTS, Costs, World
from bench.costs import RECIPE, time_driver, time_ledger, time_plan
from bench.footage import HD, rendered, repeated
from bench.harness import ratio, run
from bench.simulation import Result, simulate
from longreel.schemas import PLAN
from pipelines.cluster import connected
from pipelines.passes import in_batches, through
from pipelines.plan import plan_video
from pipelines.resources import cores
from pipelines.sources import SourceVideo

SIDE = 384
NODES, NODES_QUICK = (1, 10, 100, 300, 1000, 3000), (1, 1000)
AT = 1000
SEEDS, SEEDS_QUICK = 5, 1
#: The layouts that are simulated at every size: what is there, and with every change.
ENDS = (next(iter(LAYOUTS)), list(LAYOUTS)[-1])


class Decoder:
    """The decoding half of a job's worker; frames go to the object store."""

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """A row per segment: the process, when it began and ended, seconds of video."""
        for planned in batch.to_pylist():
            begun = time.time()
            decoded = decode_planned(planned, SIDE)
            ray.put(decoded.frames)
            row = {"pid": os.getpid(), "begun": begun, "ended": time.time()}
            row |= {"video_s": planned["end_s"] - planned["start_s"], "decode_s": decoded.decode_s}
            yield pa.Table.from_pylist([row])


def decoded(plan: list[dict[str, Any]], workers: int) -> dict[str, float]:
    """One pass over the plan by ``workers`` actors.

    Returns:
        ``rate``: seconds of video decoded a second, from when every actor has begun to the end;
        ``decode_s``: one actor's time for a second of video; ``start_s`` until the first began.
    """
    started = time.time()
    out = through(Decoder, (), in_batches(plan, workers, largest=16), PLAN, workers)
    batches = out.iter_batches(batch_size=None, batch_format="pyarrow")
    rows = [row for table in batches for row in table.to_pylist()]
    begins: dict[int, float] = {}
    for row in rows:
        begins[row["pid"]] = min(row["begun"], begins.get(row["pid"], row["begun"]))
    if len(begins) != workers:
        raise RuntimeError(f"{len(begins)} actors decoded where {workers} were to")
    ready, end = max(begins.values()), max(row["ended"] for row in rows)
    # Of a segment under way when the last actor begins, the part after that counts.
    video_s = sum(
        row["video_s"]
        * max(0.0, row["ended"] - max(ready, row["begun"]))
        / (row["ended"] - row["begun"])
        for row in rows
    )
    return {
        "rate": video_s / (end - ready),
        "decode_s": sum(row["decode_s"] for row in rows) / sum(row["video_s"] for row in rows),
        "start_s": min(begins.values()) - started,
    }


def measured(quick: bool) -> tuple[dict[int, list[dict[str, float]]], Costs]:
    """Passes by number of actors, and the costs for the simulation."""
    runs, times = (1, 4) if quick else (5, 40)
    passes: dict[int, list[dict[str, float]]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = rendered(HD)
        long = repeated(clip, times, folder / "long.mp4")
        _, plan = plan_video(SourceVideo(str(long), None, None), RECIPE)
        with connected("local"):
            decoded(plan[:4], 1)
            for _ in range(runs):
                for workers, kept in passes.items():
                    kept.append(decoded(plan, workers))
            costs = Costs(
                **time_plan(long),
                **time_driver(120 if quick else 400),
                **time_ledger(300),
                actor_start_s=median(done["start_s"] for done in passes[1]),
                decode_s=median(done["decode_s"] for done in passes[1]),
            )
    return passes, costs


def _simulated(task: tuple[Costs, str, int, int]) -> Result:
    costs, layout, nodes, seed = task
    return simulate(World(), costs, LAYOUTS[layout], nodes, seed)


def simulated(costs: Costs, quick: bool) -> dict[str, dict[int, list[Result]]]:
    """Results by layout and number of nodes, one a seed."""
    wide, seeds = (NODES_QUICK, SEEDS_QUICK) if quick else (NODES, SEEDS)
    tasks = [
        (costs, layout, nodes, seed)
        for seed in range(seeds)
        for layout in LAYOUTS
        # All changes and none of them matter most.
        for nodes in (wide if layout in ENDS else (AT,))
    ]
    found: dict[str, dict[int, list[Result]]] = {}
    with ProcessPoolExecutor(cores(), mp_context=get_context("spawn")) as pool:
        for (_, layout, nodes, _), result in zip(tasks, pool.map(_simulated, tasks), strict=True):
            found.setdefault(layout, {}).setdefault(nodes, []).append(result)
    return found


def described(results: list[Result]) -> dict[str, Any]:
    """One size's figures over the seeds; times and shares are the first seed's."""
    first = results[0]
    return {
        "efficiency": ratio([result.efficiency for result in results]),
        "bottleneck": first.bottleneck,
        "ideal_s": first.ideal_s,
        "total_s": first.total_s,
        "phases_s": first.phases_s,
        "tail_s": first.tail_s,
        "busy": first.busy,
    }


def measure(quick: bool) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The measured and the simulated half."""
    passes, costs = measured(quick)
    found = simulated(costs, quick)
    ratios = {
        "speedup_2_workers": ratio(
            [two["rate"] / one["rate"] for one, two in zip(passes[1], passes[2], strict=True)]
        ),
        "simulated_efficiency_1000_nodes": ratio([r.efficiency for r in found[ENDS[0]][AT]]),
    }
    by_layout = {
        layout: {nodes: described(results) for nodes, results in sizes.items()}
        for layout, sizes in found.items()
    }
    medians = {layout: sizes[AT]["efficiency"]["median"] for layout, sizes in by_layout.items()}
    for layout in LAYOUTS:
        figures = by_layout[layout][AT]
        print(f"{AT} nodes, {layout}: {medians[layout]:.3f}, busiest: {figures['bottleneck']}")
    settings = {
        "decoded": f"H.264 {HD.width}x{HD.height} to {SIDE}x{SIDE} at {RECIPE.fps:g} frames/s",
        "segment_s": RECIPE.segment_s,
        "hours": World().hours,
        "seeds": SEEDS_QUICK if quick else SEEDS,
    }
    figures = {
        "passes": passes,
        "simulated": by_layout,
        "gained_at_1000": {b: medians[b] / medians[a] for a, b in pairwise(medians)},
        "assumptions": {
            "measured": asdict(costs),
            "assumed": asdict(World()),
            "layouts": {name: asdict(layout) for name, layout in LAYOUTS.items()},
        },
    }
    return settings, ratios, figures


if __name__ == "__main__":
    run("scale", measure)
