"""What a job's single processes cost, timed here with the job's own parts."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray

from actors.ledger import Ledger
from actors.objects import join_uri
from actors.progress import Progress
from actors.rowfiles import replace_rows, write_rows
from actors.rows import read_rows
from bench.assumed import JPEG_BYTES
from longreel.schemas import OK, PLAN, SEGMENTS
from pipelines.ids import Recipe
from pipelines.keyframes import PER_SEGMENT
from pipelines.passes import through
from pipelines.plan import plan_video
from pipelines.sources import SourceVideo

RECIPE = Recipe("bench", "bench", "bench", 0.2, 2.0, 30.0, 0.0)


def timed(call: Callable[[], Any], times: int = 3) -> float:
    """Median seconds of ``call``."""
    took = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        took.append(time.perf_counter() - started)
    return median(took)


def segment_row(number: int) -> dict[str, Any]:
    """A row as large as a real one's, with all its keyframes."""
    pictures = [
        {"time_s": 4.0 * i, "score": 0.5, "jpeg": os.urandom(JPEG_BYTES), "uri": None}
        for i in range(PER_SEGMENT)
    ]
    said = [{"time_s": 5.0 * i, "text": "a person turns left and waits"} for i in range(6)]
    return dict.fromkeys(SEGMENTS.names) | {
        "segment_id": f"{number:020x}",
        "video_id": f"{number // 40:016x}",
        "uri": f"s3://bucket/prefix/{number // 40}.mp4",
        "start_s": 0.0,
        "end_s": 30.0,
        "n_frames": 60,
        "status": OK,
        "narrations": said,
        "summary": "a person turns left and waits; a car passes" * 4,
        "keyframes": pictures,
    }


def time_ledger(count: int) -> dict[str, float]:
    """``begin_s``, ``add_s``, ``write_s`` and ``scan_s`` over ``count`` rows."""
    rows = [segment_row(i) for i in range(count)]
    begin, add = [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(3):
            # So few rows that no file is written between.
            ledger = _LedgerActor.remote(folder, Progress(), set())
            ray.get(ledger.begin.remote(""))
            started = time.perf_counter()
            ray.get([ledger.begin.remote("s") for _ in rows])
            begun = time.perf_counter()
            ray.get([ledger.add_segment.remote(row) for row in rows])
            begin.append(begun - started)
            add.append(time.perf_counter() - begun)
            ray.kill(ledger)
        path = join_uri(folder, "segments")
        write = timed(lambda: write_rows(path, rows, SEGMENTS))
        wanted = pc.field("video_id").isin(pa.array([rows[0]["video_id"]]))
        scan = timed(lambda: read_rows(path, SEGMENTS, where=wanted)) / 3
    costs = {"begin_s": median(begin), "add_s": median(add), "write_s": write, "scan_s": scan}
    return {name: seconds / count for name, seconds in costs.items()}


def time_plan(video: Path) -> dict[str, float]:
    """``probe_s``, ``plan_segment_s`` and ``plan_arrow_s``."""
    _, found = plan_video(SourceVideo(str(video), None, None), RECIPE)

    def per_row(handle: Callable[[list[dict[str, Any]]], float]) -> float:
        # What a pass costs whatever it holds is not the row's.
        few, many = ([found[i % len(found)] for i in range(n)] for n in (800, 4800))
        handle(few)
        return max(0.0, handle(many) - handle(few)) / (len(many) - len(few))

    return {
        "probe_s": timed(lambda: plan_video(SourceVideo(str(video), None, None), RECIPE)),
        "plan_segment_s": per_row(_planned_as_rows),
        "plan_arrow_s": per_row(_planned_as_arrow),
    }


def _planned_as_rows(rows: list[dict[str, Any]]) -> float:
    """Seconds as ``pipelines.plan`` and ``pipelines.claimed`` do it."""
    schema = pa.schema([("segments", pa.list_(pa.struct(list(PLAN))))])
    pieces = [{"segments": rows[i : i + 40]} for i in range(0, len(rows), 40)]
    tables = [pa.Table.from_pylist([piece], schema=schema) for piece in pieces]

    def handle() -> None:
        found = [s for r in ray.data.from_arrow(tables).iter_rows() for s in r["segments"]]
        with tempfile.TemporaryDirectory() as folder:
            write_rows(folder, found, PLAN)
        for i in range(0, len(found), 16):
            ray.put(pa.Table.from_pylist(found[i : i + 16], schema=PLAN))

    return timed(handle)


def _planned_as_arrow(rows: list[dict[str, Any]]) -> float:
    """The same without a dictionary for each row."""
    flat = pa.Table.from_pylist(rows, schema=PLAN)
    tables = [flat.slice(i, 40) for i in range(0, len(flat), 40)]

    def handle() -> None:
        batches = ray.data.from_arrow(tables).iter_batches(batch_size=None, batch_format="pyarrow")
        whole = pa.concat_tables(list(batches)).combine_chunks()
        with tempfile.TemporaryDirectory() as folder:
            replace_rows(join_uri(folder, "plan.parquet"), whole)
        for i in range(0, len(whole), 16):
            ray.put(whole.slice(i, 16))

    return timed(handle)


#: Without the lease of a run.
_LedgerActor = ray.remote(num_cpus=0)(Ledger)


class _Idle:
    def __call__(self, batch: pa.Table) -> pa.Table:
        return batch.slice(0, 1)


class _Stuck:
    def wait(self) -> None:
        time.sleep(600.0)


_StuckActor = ray.remote(num_cpus=0)(_Stuck)


def time_driver(batches: int) -> dict[str, float]:
    """``batch_s`` as processor time of this process, and ``watch_s``."""
    planned = dict.fromkeys(PLAN.names) | {"segment_id": "s"}

    def spent(count: int) -> float:
        work = through(_Idle, (), [[planned]] * count, PLAN, 2)
        started = time.process_time()
        for _ in work.iter_batches(batch_size=None, batch_format="pyarrow"):
            pass
        return time.process_time() - started

    few, many = spent(batches // 4), spent(batches)
    stuck = _StuckActor.remote()
    refs = [stuck.wait.remote() for _ in range(1000)]
    watch = timed(lambda: ray.wait(refs, num_returns=len(refs), timeout=0, fetch_local=False), 9)
    ray.kill(stuck)
    return {"batch_s": (many - few) / (batches - batches // 4), "watch_s": watch / len(refs)}
