"""The main job: sources to a plan, through decoding actors and the model, to rows."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import wait
from functools import partial
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.actor import ActorHandle
from ray.data import ActorPoolStrategy, Dataset

from actors.ledger import LedgerActor
from actors.objects import join_uri, normalize_uri
from actors.progress import Progress
from actors.rowfiles import write_rows
from longreel import __version__
from longreel.errors import LongreelError
from longreel.schemas import PLAN, PROBE, SEGMENTS, VIDEOS
from mod.checkpoint import Checkpoint, find_checkpoint
from pipelines.background import in_background
from pipelines.cluster import connected, cores
from pipelines.ids import Recipe
from pipelines.job import Outcome, SummarizeRequest, claim_output, job_recipe
from pipelines.plan import plan_all
from pipelines.rows import parquet_files, read_rows, read_table
from pipelines.sources import expand_sources
from pipelines.superseded import drop_superseded, still_unusable
from pipelines.videos import VideoReducer
from pipelines.worker import SegmentWorker, WorkOrder
from serve.app import ReplicaPlan, deploy, require_same, running

#: Called with the phase's name and the progress so far, a few times a second.
Report = Callable[[str, Progress], None]
_POLL_S = 0.25


def summarize(request: SummarizeRequest, report: Report) -> Outcome:
    """Run a job to its end; run again with the same output it does what is still missing.

    Raises:
        UsageError: the request cannot work.
        LongreelError: the job failed as a whole; rows written so far stay.
    """
    started = time.monotonic()
    checkpoint = find_checkpoint(request.model)
    recipe = job_recipe(request, checkpoint)
    output = normalize_uri(request.output)
    report("finding videos", Progress())
    sources = expand_sources(request.sources)
    job_id = claim_output(output, recipe, request.job_id)
    with connected(request.address):
        service = partial(in_background, partial(_start_service, request, checkpoint))
        # A job that begins will need the model: it comes up while the videos are probed.
        starting = None if parquet_files(join_uri(output, "_longreel", "plan")) else service()
        report("probing", Progress(n_videos=len(sources.videos)))
        probes, plan = plan_all(sources.videos, recipe)
        drop_superseded(output, probes)
        probes = still_unusable(output, probes)
        _write_plan(output, probes, plan)
        totals, finished = _standing(output, probes, plan)
        pending = [row for row in plan if row["segment_id"] not in finished]
        undone = [row for row in probes if row["video_id"] not in finished]
        if pending or any(row["n_segments"] for row in undone):
            report("starting the model", totals)
            (starting or service()).result()
        ledger = LedgerActor.remote(output, totals, finished)
        order = WorkOrder(
            recipe=recipe,
            instruction=request.prompt or checkpoint.instruction,
            image_size=checkpoint.image_size,
            provenance=_provenance(job_id, recipe),
        )
        try:
            if pending:
                work = _segment_pass(pending, order, ledger, request.workers)
                _drive(work, ledger, lambda p: report("narrating", p))
            ray.get(ledger.flush.remote())
            if undone:
                work = _video_pass(output, undone, order.provenance, ledger)
                _drive(work, ledger, lambda p: report("summarizing", p))
        finally:
            # Also when interrupted: what has been worked out need not be worked out again.
            ray.get(ledger.flush.remote())
        progress: Progress = ray.get(ledger.progress.remote())
    return Outcome(job_id, progress, time.monotonic() - started)


def _segment_pass(
    pending: list[dict[str, Any]], order: WorkOrder, ledger: ActorHandle, workers: int
) -> Dataset:
    """The plan's rows that have no segment row yet, through the decoding actors."""
    workers = workers or cores()
    # Small enough that every actor gets several, large enough that decoding runs ahead.
    batch = max(1, min(16, len(pending) // (4 * workers)))
    return _through(SegmentWorker, (order, ledger), pending, PLAN, batch, workers)


def _video_pass(
    output: str, undone: list[dict[str, Any]], provenance: dict[str, Any], ledger: ActorHandle
) -> Dataset:
    """The probe rows of videos that have no row yet, through the reducers."""
    batch = max(1, min(64, len(undone) // 4))
    return _through(VideoReducer, (output, provenance, ledger), undone, PROBE, batch, cores())


def _through(
    worker: type,
    arguments: tuple[Any, ...],
    rows: list[dict[str, Any]],
    schema: pa.Schema,
    batch: int,
    workers: int,
) -> Dataset:
    """``rows`` in batches through actors of one kind, one CPU each."""
    tables = [
        pa.Table.from_pylist(rows[i : i + batch], schema=schema) for i in range(0, len(rows), batch)
    ]
    return ray.data.from_arrow(tables).map_batches(
        worker,
        fn_constructor_args=arguments,
        batch_size=None,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(min_size=1, max_size=workers),
        num_cpus=1,
    )


def _drive(work: Dataset, ledger: ActorHandle, report: Callable[[Progress], None]) -> None:
    """Run a pass to its end, reporting the ledger's progress meanwhile."""

    def consume() -> None:
        for _ in work.iter_batches(batch_size=None, batch_format="pyarrow"):
            pass

    done = in_background(consume)
    while not done.done():
        report(ray.get(ledger.progress.remote()))
        wait([done], _POLL_S)
    report(ray.get(ledger.progress.remote()))
    if failure := done.exception():
        reason = str(failure).strip().splitlines() or [""]
        raise LongreelError(f"the job failed: {type(failure).__name__}: {reason[-1]}")


def _write_plan(output: str, probes: list[dict[str, Any]], plan: list[dict[str, Any]]) -> None:
    """Add to the plan in ``output`` what is not in it yet."""
    for name, rows, schema, key in (
        ("plan", plan, PLAN, "segment_id"),
        ("videos", probes, PROBE, "video_id"),
    ):
        folder = join_uri(output, "_longreel", name)
        known = set(read_table(folder, schema, columns=[key])[key].to_pylist())
        new = [row for row in rows if row[key] not in known]
        if new:
            write_rows(folder, new, schema)


def _standing(
    output: str, probes: list[dict[str, Any]], plan: list[dict[str, Any]]
) -> tuple[Progress, set[str]]:
    """Totals of the plan with what earlier runs finished, and the finished ids."""
    totals = Progress(
        n_videos=len(probes),
        n_segments=len(plan),
        total_video_seconds=sum(row["end_s"] - row["start_s"] for row in plan),
    )
    columns = ["segment_id", "status", "start_s", "end_s", "n_frames"]
    planned = {row["segment_id"] for row in plan}
    done = read_rows(join_uri(output, "segments"), SEGMENTS, columns=columns)
    for row in done:
        if row["segment_id"] in planned:
            totals.segments[row["status"]] += 1
            totals.frames += row["n_frames"]
            totals.video_seconds += row["end_s"] - row["start_s"]
    finished = {row["segment_id"] for row in done}
    probed = {row["video_id"] for row in probes}
    for row in read_rows(join_uri(output, "videos"), VIDEOS, columns=["video_id", "status"]):
        finished.add(row["video_id"])
        if row["video_id"] in probed:
            totals.videos[row["status"]] += 1
    return totals, finished


def _start_service(request: SummarizeRequest, checkpoint: Checkpoint) -> None:
    plan = ReplicaPlan(
        model=request.model,
        keep_ratio=request.keep_ratio,
        min_replicas=request.min_replicas,
        max_replicas=request.max_replicas,
        num_gpus=request.num_gpus,
    )
    if running():
        require_same(plan, checkpoint)
    else:
        deploy(plan, http=None)


def _provenance(job_id: str, recipe: Recipe) -> dict[str, Any]:
    return {
        "job_id": job_id,
        "model": recipe.model,
        "model_revision": recipe.model_revision,
        "prompt_hash": recipe.prompt_hash,
        "code_version": __version__,
        "keep_ratio": recipe.keep_ratio,
        "fps": recipe.fps,
    }
