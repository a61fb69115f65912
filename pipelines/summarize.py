"""The main job: what can be refused at once is, before Ray and what goes with it is loaded."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from actors.lease import leased
from actors.objects import join_uri, normalize_uri
from actors.progress import Progress
from actors.rows import require_schema
from longreel.schemas import SEGMENTS, VIDEOS
from mod.checkpoint import find_checkpoint
from pipelines.endpoint import find_endpoint
from pipelines.job import Outcome, SummarizeRequest, claim_output, job_recipe, provenance
from pipelines.sources import expand_sources

if TYPE_CHECKING:
    from pipelines.run import Report


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
        from pipelines.claimed import Claimed, carry_out  # takes seconds

        claimed = Claimed(
            request=request,
            checkpoint=checkpoint,
            recipe=recipe,
            endpoint=endpoint,
            output=output,
            job_id=job_id,
            columns=provenance(job_id, recipe),
            token=lease.token,
        )
        progress = carry_out(claimed, sources.videos, report)
    return Outcome(job_id, progress, time.monotonic() - started)
