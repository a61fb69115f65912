"""A summarization job: what the user asked for, its record beside the rows, what came of it."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, fields
from typing import Any

from actors.grid import LOWEST_FPS
from actors.objects import join_uri, located, normalize_uri, printable_uri
from actors.progress import Progress
from actors.rows import parquet_files
from longreel import __version__
from longreel.errors import StorageError, UsageError
from mod.checkpoint import Checkpoint, located_model
from mod.choice import choose_router, require_router
from mod.quantized import check_quantize
from pipelines.endpoint import check_address
from pipelines.ids import Recipe, prompt_hash
from pipelines.record import check_job_id, new_job_id, read_record, versions, write_record

#: Segments are short streams of their own, side by side; or one stream goes through the video.
MODES = ("segments", "stream")


@dataclass(frozen=True)
class SummarizeRequest:
    """What ``longreel summarize`` was asked to do; see its help for units and defaults."""

    sources: tuple[str, ...]
    output: str
    model: str
    fps: float | None = None
    segment_s: float = 30.0
    prompt: str | None = None
    keep_ratio: float | None = None
    router: str | None = None
    quantize: str | None = None
    silence_threshold: float = 0.0
    mode: str = "segments"
    summarizer: str | None = None
    summarizer_model: str | None = None
    job_id: str | None = None
    workers: int = 0
    min_replicas: int = 1
    max_replicas: int = 1
    num_gpus: float = 0.0
    address: str | None = None


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        seconds: wall time.
    """

    job_id: str
    progress: Progress
    seconds: float


def job_recipe(request: SummarizeRequest, checkpoint: Checkpoint) -> Recipe:
    """The recipe of a request, defaults taken from the checkpoint.

    Raises:
        UsageError: a number that cannot work.
    """
    fps = checkpoint.fps if request.fps is None else request.fps
    keep_ratio = checkpoint.keep_ratio if request.keep_ratio is None else request.keep_ratio
    if not LOWEST_FPS <= fps <= 120:
        raise UsageError(f"--fps must lie in [{LOWEST_FPS:g}, 120] frames a second, not {fps}")
    if not 0 < keep_ratio <= 1:
        raise UsageError(f"--keep-ratio must lie in (0, 1], not {keep_ratio}")
    chosen = None if request.router is None else choose_router(request.router, checkpoint)
    require_router(request.keep_ratio, chosen.kind if chosen else None, checkpoint)
    check_quantize(request.quantize)
    if not 0 <= request.silence_threshold <= 1:
        raise UsageError(f"--silence-threshold must lie in [0, 1], not {request.silence_threshold}")
    if not 1 <= request.segment_s <= 3600:
        raise UsageError(f"--segment-seconds must lie in [1, 3600], not {request.segment_s}")
    if request.mode not in MODES:
        raise UsageError(f"--mode must be {' or '.join(MODES)}, not {request.mode!r}")
    if request.summarizer_model and not request.summarizer:
        raise UsageError("--summarizer-model needs --summarizer, the address that has it")
    if request.summarizer is not None:
        check_address(request.summarizer)
    if request.workers < 0:
        raise UsageError(f"--workers must be 0 or more, not {request.workers}")
    if request.num_gpus < 0:
        raise UsageError(f"--gpus-per-replica must be 0 or more, not {request.num_gpus}")
    if request.prompt and request.prompt.encode(errors="ignore").decode() != request.prompt:
        raise UsageError(f"--prompt is not UTF-8: {request.prompt!r}")
    if not request.output.strip():
        raise UsageError("--output must name a folder or s3://bucket/prefix")
    if request.job_id is not None:
        check_job_id(request.job_id)
    return Recipe(
        model=checkpoint.name,
        model_revision=checkpoint.revision,
        prompt_hash=prompt_hash(request.prompt or checkpoint.instruction),
        keep_ratio=keep_ratio,
        fps=fps,
        segment_s=request.segment_s,
        silence_threshold=request.silence_threshold,
        mode=request.mode,
        summarizer=" ".join(filter(None, (request.summarizer, request.summarizer_model))) or None,
        router=request.router,
        quantize=request.quantize,
    )


def claim_output(output: str, recipe: Recipe, request: SummarizeRequest) -> str:
    """Record the job in ``output``, or join the one that began there, and return its id.

    Raises:
        UsageError: the output holds rows of another recipe or another job; the message says
            what differs.
    """
    record = read_record(output)
    if record is None:
        told: dict[str, Any] = {
            "job_id": request.job_id or new_job_id(),
            "recipe": asdict(recipe),
            "code_version": __version__,
            "created_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
    else:
        require_same_job(record, output, recipe, request.job_id)
        told = dict(record)
    # Of the latest run: sources may have been added since the job began.
    told |= {"request": _asked(request), "versions": versions()}
    if told != record:
        write_record(output, told)
    return str(told["job_id"])


def is_planned(output: str) -> bool:
    """Whether a job has begun in ``output``: its plan is there."""
    return bool(parquet_files(join_uri(normalize_uri(output), "_longreel", "plan")))


def require_same_job(
    record: dict[str, Any], output: str, recipe: Recipe, job_id: str | None
) -> None:
    """Check that a job may go on where ``record`` says one began. Raises ``UsageError``."""
    made = asdict(Recipe(**record["recipe"]))
    changed = [
        f"{name} {made[name]!r} -> {value!r}"
        for name, value in asdict(recipe).items()
        if made[name] != value
    ]
    if changed:
        raise UsageError(
            f"{output} holds rows made with other settings ({', '.join(changed)}); "
            "choose another --output"
        )
    if job_id not in (None, record["job_id"]):
        raise UsageError(f"{output} belongs to job {record['job_id']}, not {job_id}")


def recorded_request(record: dict[str, Any], output: str) -> SummarizeRequest:
    """What the latest run of a recorded job was asked to do.

    Raises:
        UsageError: the record does not say, or holds options that this version does not know.
    """
    asked = record.get("request")
    if not asked:
        raise UsageError(
            f"{output} was begun by a version that did not record what was asked for; "
            "submit it with its own sources and options"
        )
    known = {field.name for field in fields(SummarizeRequest)}
    if unknown := sorted(set(asked["options"]) - known):
        raise UsageError(f"{output} was made by a newer version: unknown {', '.join(unknown)}")
    return SummarizeRequest(
        sources=tuple(asked["sources"]),
        output=output,
        job_id=str(record["job_id"]),
        **asked["options"],
    )


def _asked(request: SummarizeRequest) -> dict[str, Any]:
    """The request as its record keeps it: fit to be sent again from anywhere."""
    options = asdict(request)
    for name in ("sources", "output", "job_id", "address"):
        del options[name]
    options["model"] = located_model(request.model)
    sources = []
    for source in request.sources:
        try:
            sources.append(located(source))
        except StorageError:  # it has its row that says so
            sources.append(printable_uri(source))
    return {"sources": sources, "options": options}


def provenance(job_id: str, recipe: Recipe) -> dict[str, Any]:
    """The provenance columns of a row, and ``job_id``."""
    return {
        "job_id": job_id,
        "model": recipe.model,
        "model_revision": recipe.model_revision,
        "prompt_hash": recipe.prompt_hash,
        "code_version": __version__,
        "keep_ratio": recipe.keep_ratio,
        "fps": recipe.fps,
    }
