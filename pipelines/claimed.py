"""A job that holds its output: sources to a plan, and through decoders and the model to rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray

from actors.lease import require
from actors.ledger import LedgerActor
from actors.objects import join_uri
from actors.progress import Progress
from actors.rowfiles import write_rows
from actors.rows import read_table
from actors.standing import stand
from longreel.schemas import PLAN, PROBE
from mod.checkpoint import Checkpoint
from mod.weights import loaded_bytes
from pipelines.background import in_background
from pipelines.cluster import connected, on_this_node
from pipelines.endpoint import Endpoint
from pipelines.ids import Recipe
from pipelines.job import SummarizeRequest, is_planned
from pipelines.local import starts_one
from pipelines.passes import Row, pool_size
from pipelines.plan import plan_all
from pipelines.repeated import undo_repeated
from pipelines.resources import JOB_CPUS, lacking, refuse_replicas
from pipelines.retries import drop_retried
from pipelines.run import Model, Report, Run
from pipelines.sources import SourceVideo
from pipelines.standing import work_of
from pipelines.superseded import drop_superseded, still_unusable
from pipelines.videos import ReduceOrder
from pipelines.worker import WorkOrder, wanted_of
from serve.app import ReplicaPlan, ensure
from serve.observe.ids import current, of_job, under
from serve.observe.traces import span
from serve.served import Served


@dataclass(frozen=True)
class Claimed:
    """A job whose output is its own.

    Attributes:
        endpoint: that joins summaries in place of the model.
        output: folder or prefix.
        columns: the provenance columns of its rows, and ``job_id``.
        token: of the lease that is held on the output.
    """

    request: SummarizeRequest
    checkpoint: Checkpoint
    recipe: Recipe
    endpoint: Endpoint | None
    output: str
    job_id: str
    columns: dict[str, Any]
    token: str


def carry_out(job: Claimed, videos: Sequence[SourceVideo], report: Report) -> Progress:
    """Do what is still missing of a job; how far it came.

    Raises:
        UsageError, LongreelError: as for :func:`pipelines.summarize.summarize`.
    """
    request, output = job.request, job.output
    alone = starts_one(request.address) and not ray.is_initialized()
    with (
        connected(request.address),
        under(of_job(job.job_id)),
        span("job", longreel__job=job.job_id),
    ):
        workers = pool_size(request.workers, request.max_replicas)
        service = partial(in_background, partial(_start_service, request, wanted_of(job.recipe)))
        # A job that begins needs the model: it comes up while the videos are probed.
        begins = not is_planned(output)
        starting = service() if begins else None
        report("probing", Progress(n_videos=len(videos)))
        probes, plan = plan_all(videos, job.recipe)
        require(output, job.token)  # planning may have taken hours
        drop_superseded(output, probes)
        probes, others = still_unusable(output, probes)
        drop_retried(output, probes, job.recipe.mode)
        _write_plan(output, probes, plan)
        work = work_of(probes, plan, others)
        standing = stand(output, work)
        if standing.repeated:  # a run that was taken for dead may have been amid a file
            undo_repeated(output, work.videos)
            standing = stand(output, work)
        model = None
        if _needs_model(probes, plan, standing.finished):
            needed = loaded_bytes(
                job.checkpoint.folder, request.quantize, on_gpu=request.num_gpus > 0
            )
            told = f"starting the model, {needed / 2**20:,.0f} MiB of weights"
            replicas = max(1, request.min_replicas)
            there = ray.cluster_resources()
            if alone:
                refuse_replicas(replicas, request.num_gpus, there, beside=JOB_CPUS)
            if short := lacking(replicas, request.num_gpus, there, beside=1):
                told += f" (waiting for more nodes: {short})"
            report(told, standing.progress)
            model = Model(starting or service(), told)
            if not _room_beside(workers + request.max_replicas):
                model.started.result()
        # It must not die but with this process.
        ledger = LedgerActor.options(scheduling_strategy=on_this_node()).remote(
            output, work, job.token, job.job_id
        )
        run = Run(output, job.token, work, ledger, workers, report, standing.finished, model)
        run.narrate(
            plan,
            WorkOrder(
                output=output,
                recipe=job.recipe,
                instruction=request.prompt or job.checkpoint.instruction,
                image_size=job.checkpoint.image_size,
                provenance=job.columns,
                span=current(),
            ),
        )
        run.reduce(probes, ReduceOrder(output, job.columns, wanted_of(job.recipe), job.endpoint))
        progress: Progress = ray.get(ledger.progress.remote())
    return progress


def _write_plan(output: str, probes: list[Row], plan: list[Row]) -> None:
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


def _room_beside(actors: int) -> bool:
    """Whether decoding actors can come up while the model does: not where they could take the CPU
    that a replica waits for, and then wait for that replica."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    return len(nodes) == 1 and actors < ray.available_resources().get("CPU", 0)


def _needs_model(probes: list[Row], plan: list[Row], finished: set[str]) -> bool:
    """Whether a segment, or a video that has segments, lacks its row."""
    return any(row["segment_id"] not in finished for row in plan) or any(
        row["n_segments"] and row["video_id"] not in finished for row in probes
    )


def _start_service(request: SummarizeRequest, wanted: Served) -> None:
    plan = ReplicaPlan(
        model=request.model,
        keep_ratio=request.keep_ratio,
        router=request.router,
        quantize=request.quantize,
        min_replicas=request.min_replicas,
        max_replicas=request.max_replicas,
        num_gpus=request.num_gpus,
    )
    ensure(plan, wanted)
