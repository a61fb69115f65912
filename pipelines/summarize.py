"""The main job: sources to a plan, through decoding actors and the model, to rows."""

from __future__ import annotations

import time
from functools import partial

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.lease import leased
from actors.ledger import LedgerActor
from actors.objects import join_uri, normalize_uri
from actors.progress import Progress
from actors.rowfiles import write_rows
from actors.rows import drop_repeated, parquet_files, read_table, require_schema
from actors.standing import stand
from longreel.schemas import PLAN, PROBE, SEGMENTS, VIDEOS
from mod.checkpoint import Checkpoint, find_checkpoint
from mod.weights import loaded_bytes
from pipelines.background import in_background
from pipelines.cluster import connected
from pipelines.endpoint import find_endpoint
from pipelines.job import Outcome, SummarizeRequest, claim_output, job_recipe, provenance
from pipelines.passes import Row, pool_size
from pipelines.plan import plan_all
from pipelines.retries import drop_retried
from pipelines.run import Report, Run
from pipelines.sources import expand_sources
from pipelines.standing import work_of
from pipelines.superseded import drop_superseded, still_unusable
from pipelines.videos import ReduceOrder
from pipelines.worker import WorkOrder
from serve.app import ReplicaPlan, deploy, require_same, running
from serve.observe.ids import current, of_job, under
from serve.observe.traces import span


def summarize(request: SummarizeRequest, report: Report) -> Outcome:
    """Run a job to its end; run again with the same output it does what is still missing.

    Raises:
        UsageError: the request cannot work.
        LongreelError: the job failed as a whole, or another run works on the output; rows written
            so far stay.
    """
    started = time.monotonic()
    checkpoint = find_checkpoint(request.model)
    recipe = job_recipe(request, checkpoint)
    endpoint = (
        find_endpoint(request.summarizer, request.summarizer_model) if request.summarizer else None
    )
    output = normalize_uri(request.output)
    report("finding videos", Progress())
    sources = expand_sources(request.sources)
    with leased(output) as lease:
        for name, schema in (("segments", SEGMENTS), ("videos", VIDEOS)):
            require_schema(join_uri(output, name), schema)
        job_id = claim_output(output, recipe, request)
        columns = provenance(job_id, recipe)
        with connected(request.address), under(of_job(job_id)), span("job", longreel__job=job_id):
            service = partial(in_background, partial(_start_service, request, checkpoint))
            # A job that begins needs the model: it comes up while the videos are probed.
            begins = not parquet_files(join_uri(output, "_longreel", "plan"))
            starting = service() if begins else None
            report("probing", Progress(n_videos=len(sources.videos)))
            probes, plan = plan_all(sources.videos, recipe)
            drop_superseded(output, probes)
            probes = still_unusable(output, probes)
            drop_retried(output, probes)
            _write_plan(output, probes, plan)
            work = work_of(probes, plan)
            standing = stand(output, work)
            if standing.repeated:  # a run that was taken for dead may have been amid a file
                drop_repeated(join_uri(output, "videos"), VIDEOS, "video_id")
                drop_repeated(join_uri(output, "segments"), SEGMENTS, "segment_id")
            if _needs_model(probes, plan, standing.finished):
                needed = loaded_bytes(
                    checkpoint.folder, request.quantize, on_gpu=request.num_gpus > 0
                )
                told = f"starting the model, {needed / 2**20:,.0f} MiB of weights"
                report(told, standing.progress)
                (starting or service()).result()
            # On this node: it must not die but with this process.
            here_only = NodeAffinitySchedulingStrategy(
                ray.get_runtime_context().get_node_id(), soft=False
            )
            ledger = LedgerActor.options(scheduling_strategy=here_only).remote(
                output, work, lease.token, job_id
            )
            workers = pool_size(request.workers, request.max_replicas)
            run = Run(output, work, ledger, workers, report, standing.finished)
            run.narrate(
                plan,
                WorkOrder(
                    output=output,
                    recipe=recipe,
                    instruction=request.prompt or checkpoint.instruction,
                    image_size=checkpoint.image_size,
                    provenance=columns,
                    span=current(),
                ),
            )
            run.reduce(probes, ReduceOrder(output, columns, endpoint))
            progress: Progress = ray.get(ledger.progress.remote())
    return Outcome(job_id, progress, time.monotonic() - started)


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


def _needs_model(probes: list[Row], plan: list[Row], finished: set[str]) -> bool:
    """Whether a segment, or a video that has segments, lacks its row."""
    return any(row["segment_id"] not in finished for row in plan) or any(
        row["n_segments"] and row["video_id"] not in finished for row in probes
    )


def _start_service(request: SummarizeRequest, checkpoint: Checkpoint) -> None:
    plan = ReplicaPlan(
        model=request.model,
        keep_ratio=request.keep_ratio,
        router=request.router,
        quantize=request.quantize,
        min_replicas=request.min_replicas,
        max_replicas=request.max_replicas,
        num_gpus=request.num_gpus,
    )
    if running():
        require_same(plan, checkpoint)
    else:
        deploy(plan, http=None)
