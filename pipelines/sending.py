"""What is made sure of before a job is sent to a cluster, as far as this machine can see."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from actors.objects import is_s3, located
from longreel.errors import StorageError, UsageError
from mod.checkpoint import TINY, find_checkpoint
from pipelines.entrypoint import placed
from pipelines.job import (
    SummarizeRequest,
    job_recipe,
    recorded_request,
    require_same_job,
)
from pipelines.record import new_job_id, read_record
from pipelines.sources import expand_sources


def ready_to_send(request: SummarizeRequest, *, look: bool = True) -> SummarizeRequest:
    """The request with absolute paths and the id of its job.

    Object storage is left to the cluster, which has credentials of its own; only whether a job
    began in the output is read from here, where that is possible.

    Args:
        look: refuse local sources, outputs and models that cannot be used from here; without it
            local paths are the cluster's own.

    Raises:
        UsageError, StorageError: the request cannot work.
    """
    sent = placed(request)
    # Of a model that only the cluster has, nothing is known of its layers.
    checkpoint = (
        find_checkpoint(request.model) if look else replace(find_checkpoint(TINY), n_layers=None)
    )
    recipe = job_recipe(request, checkpoint)
    if look and not any(map(is_s3, sent.sources)):
        expand_sources(sent.sources)
    record = _record(sent.output) if look or is_s3(sent.output) else None
    if record is None:
        return replace(sent, job_id=request.job_id or new_job_id())
    if look:
        require_same_job(record, sent.output, recipe, request.job_id)
    return replace(sent, job_id=str(record["job_id"]))


def request_to_resume(dest: str) -> SummarizeRequest:
    """What the job that began in ``dest`` was asked to do, with its id.

    Raises:
        UsageError: no job began there, or its record does not say.
        StorageError: the record could not be read.
    """
    output = located(dest)
    record = read_record(output)
    if record is None:
        raise UsageError(f"no job began in {output}: there is no _longreel/job.json")
    return recorded_request(record, output)


def _record(output: str) -> dict[str, Any] | None:
    try:
        return read_record(output)
    except StorageError:
        if is_s3(output):
            return None
        raise
