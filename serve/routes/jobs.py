"""Routes of bulk jobs: hours of video to rows of Parquet, on the cluster that serves."""

# Without postponed annotations: routes travel to the gateway's process with what their code names,
# and a type that stands in a string is not among it.
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Path, Request
from pydantic import BaseModel, ConfigDict, Field

from actors.grid import LOWEST_FPS
from serve.live.items import MOST_CHARACTERS, SessionError
from serve.routes import docs
from serve.routes.context import Context, Jobs

_ERRORS = {status: docs.ERRORS[status] for status in (400, 404, 503)}
_Job = Annotated[str, Path(description="The job's id", examples=["may"])]
_Uri = Annotated[str, Field(min_length=1, max_length=4096)]
_JOB: dict[str, Any] = {
    "id": "may",
    "object": "job",
    "status": "running",
    "created": 1767225600,
    "output": "s3://results/may",
    "progress": {
        "videos": {"total": 40, "ok": 11, "partial": 1, "failed": 0},
        "segments": {"total": 480, "ok": 150, "partial": 1, "failed": 1},
        "video_seconds": {"total": 14400.0, "done": 4560.0},
        "frames": 9120,
    },
    "error": None,
}


class JobCreate(BaseModel):
    """What to summarize, into which rows, and how; the command line's options by the same names.

    With the ``output`` of a job that was cancelled, failed or cut off, that job goes on: it does
    what is still missing.
    """

    sources: list[_Uri] = Field(
        min_length=1,
        max_length=10_000,
        description="Files, folders, globs, s3://bucket/prefix, or manifests; absolute paths "
        "are those of the cluster's nodes.",
    )
    output: _Uri = Field(description="Folder or s3://bucket/prefix for the rows.")
    model: _Uri | None = Field(None, description="A checkpoint; the bundled one by default.")
    fps: float | None = Field(None, ge=LOWEST_FPS, le=120)
    segment_seconds: float | None = Field(None, ge=1, le=3600)
    prompt: str | None = Field(None, max_length=MOST_CHARACTERS)
    keep_ratio: float | None = Field(None, gt=0, le=1)
    router: str | None = Field(
        None,
        max_length=256,
        description="What chooses the vision tokens that run, such as redundancy or "
        "attention:after-2; the model's own by default.",
    )
    quantize: Literal["int8", "int4"] | None = Field(
        None, description="Bits of the decoder's weights; those of the checkpoint by default."
    )
    silence_threshold: float | None = Field(None, ge=0, le=1)
    mode: Literal["segments", "stream"] | None = None
    summarizer: str | None = Field(
        None, max_length=2048, description="OpenAI-compatible endpoint that summarizes."
    )
    summarizer_model: str | None = Field(None, max_length=256)
    job_id: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")

    model_config = ConfigDict(
        # A misspelt option that is taken in silence is worse than an error.
        extra="forbid",
        allow_inf_nan=False,
        json_schema_extra={
            "example": {
                "sources": ["s3://footage/2026/05/"],
                "output": "s3://results/may",
                "job_id": "may",
            }
        },
    )


class RowCounts(BaseModel):
    """Rows by their status, of all that are planned."""

    total: int
    ok: int
    partial: int
    failed: int


class VideoSeconds(BaseModel):
    """Seconds of video that have rows, of all that are planned."""

    total: float
    done: float


class JobProgress(BaseModel):
    """Counted from the plan and the rows in the output; totals do not move once they are there."""

    videos: RowCounts
    segments: RowCounts
    video_seconds: VideoSeconds
    frames: int


class JobObject(BaseModel):
    """A job by its latest run.

    ``partial``: it finished, and some videos failed or are partial; their rows say why.
    ``progress`` is null until there is a plan.
    """

    id: str
    object: Literal["job"] = "job"
    status: Literal["pending", "running", "succeeded", "partial", "failed", "cancelled"]
    created: int
    output: str
    progress: JobProgress | None
    error: str | None

    model_config = ConfigDict(json_schema_extra={"example": _JOB})


class JobList(BaseModel):
    """The jobs of this cluster, oldest first."""

    object: Literal["list"] = "list"
    data: list[JobObject]

    model_config = ConfigDict(json_schema_extra={"example": {"object": "list", "data": [_JOB]}})


def router() -> APIRouter:
    """The routes under ``/v1/jobs``."""
    api = APIRouter(prefix="/v1/jobs", tags=["jobs"], responses=_ERRORS)
    api.post("", status_code=201, summary="Summarize videos into rows")(submit_job)
    api.get("", summary="Jobs")(list_jobs)
    api.get("/{job}", summary="How a job stands")(get_job)
    api.delete("/{job}", summary="Cancel a job")(cancel_job)
    return api


def _jobs(request: Request) -> Jobs:
    context: Context = request.app.state.context
    if context.jobs is None:
        raise SessionError(
            "unavailable",
            "this service takes no jobs: it runs on a cluster without Ray's dashboard, whose Jobs "
            "API they need",
        )
    return context.jobs


async def submit_job(request: Request, wanted: JobCreate) -> JobObject:
    """The job runs on the cluster beside live sessions, which go first, and reads and writes with
    the rights of the cluster's nodes. What cannot work is refused before anything starts; one bad
    video never stops a job."""
    return JobObject.model_validate(await _jobs(request).submit(wanted.model_dump()))


async def list_jobs(request: Request) -> JobList:
    """Each with its latest run."""
    found = await _jobs(request).list()
    return JobList(data=[JobObject.model_validate(each) for each in found])


async def get_job(request: Request, job: _Job) -> JobObject:
    """Its status, and its progress as it lies in the output."""
    return _found(job, await _jobs(request).get(job))


async def cancel_job(request: Request, job: _Job) -> JobObject:
    """What it has worked out is written to its rows and kept: the same request as before, with the
    same output, goes on from there. A job that needs long to write is given back as running; one
    that has ended stays as it is."""
    return _found(job, await _jobs(request).cancel(job))


def _found(job: str, found: dict[str, Any] | None) -> JobObject:
    if found is None:
        raise HTTPException(404, f"there is no job {job!r}")
    return JobObject.model_validate(found)
