"""Bulk jobs for the service: what ``longreel submit`` and ``longreel jobs`` do, as a deployment."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray
from ray import serve
from ray.serve.deployment import Application
from ray.serve.schema import LoggingConfig

from actors.keepout import KEEP_OUT
from actors.objects import is_s3
from actors.progress import Progress
from longreel.errors import LongreelError, StorageError, UsageError
from longreel.schemas import FAILED, OK, PARTIAL
from mod.checkpoint import TINY
from pipelines import submission
from pipelines.entrypoint import checkout, entrypoint, placed
from pipelines.job import SummarizeRequest
from pipelines.sending import ready_to_send
from pipelines.standing import standing
from pipelines.submission import Jobs, Run, jobs_address, latest_of
from serve.observe.logs import encoding

_STATUS = {
    submission.WAITING: "pending",
    submission.RUNNING: "running",
    submission.FINISHED: "succeeded",
    submission.NOT_ALL_OK: "partial",
    submission.CANCELLED: "cancelled",
    submission.FAILED: "failed",
}
#: What a client may ask for, and the field of a request that it is.
_FIELDS = {
    "output": "output",
    "model": "model",
    "fps": "fps",
    "segment_seconds": "segment_s",
    "prompt": "prompt",
    "keep_ratio": "keep_ratio",
    "router": "router",
    "quantize": "quantize",
    "silence_threshold": "silence_threshold",
    "mode": "mode",
    "summarizer": "summarizer",
    "summarizer_model": "summarizer_model",
    "job_id": "job_id",
}
_READERS = 4
_REMEMBERED = 500


class JobsService:
    """``serve.jobs.RemoteJobs`` calls it; everything here blocks and may run in any thread.

    Args:
        address: of the cluster's Jobs API.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._lock, self._sending = threading.Lock(), threading.Lock()
        self._cluster: Jobs | None = None
        # Of runs that have ended, whose rows change no more.
        self._ended: OrderedDict[str, dict[str, Any] | None] = OrderedDict()

    def submit(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """Send a job, or send one again that began in the same output.

        Args:
            wanted: ``sources`` and what else the API takes, and ``owner``, the id of the API key
                that it is sent with; None stands for what is left out.

        Raises:
            UsageError: it cannot work, or runs already.
            LongreelError: the cluster or a store cannot be reached.
        """
        given = {_FIELDS[name]: wanted[name] for name in _FIELDS if wanted.get(name) is not None}
        request = SummarizeRequest(sources=tuple(wanted["sources"]), **{"model": TINY, **given})
        for uri in (*request.sources, request.output):
            if not (is_s3(uri) or uri.startswith(("/", "file:///"))):
                # What a relative path is relative to, the client cannot know.
                raise UsageError(f"{uri!r} is neither an absolute path nor an s3:// address")
        owner = wanted.get("owner")
        try:
            output = placed(request).output
        except StorageError as failure:  # nothing was looked at yet: what was asked for is no uri
            raise UsageError(failure.message) from None
        # Before anything is said of what lies there.
        self._require_own(request.job_id, output, owner)
        ready = ready_to_send(request)
        assert ready.job_id is not None
        line = entrypoint(ready, ready.job_id)
        with self._sending:
            self._require_own(ready.job_id, ready.output, owner)
            run = self._jobs().send(ready.job_id, ready.output, line, checkout(), owner)
        return self._shown([run], run)

    def list(self) -> list[dict[str, Any]]:
        """The jobs of this cluster, oldest first."""
        runs = self._jobs().runs()
        ordered = sorted(latest_of(runs), key=lambda run: _created(runs, run))
        with ThreadPoolExecutor(_READERS) as pool:
            return list(pool.map(lambda run: self._shown(runs, run), ordered))

    def get(self, job: str) -> dict[str, Any] | None:
        """A job by its id."""
        runs = self._jobs().runs()
        run = _latest(runs, job)
        return None if run is None else self._shown(runs, run)

    def cancel(self, job: str) -> dict[str, Any] | None:
        """Stop a job; returns once its rows are written out. One that has ended stays as it is."""
        runs = self._jobs().runs()
        run = _latest(runs, job)
        return None if run is None else self._shown(runs, self._jobs().cancel(run))

    def _require_own(self, job: str | None, output: str, owner: str | None) -> None:
        """Refuse another key's job or output; says no more than that it is taken."""
        if owner is None:
            return
        runs = self._jobs().runs()
        for run in runs:
            if _owner(runs, run) == owner:
                continue
            if run.job_id == job:
                raise UsageError(f"the job id {job!r} is taken")
            if run.output == output:
                raise UsageError(f"the output {output!r} is another job's")

    def _jobs(self) -> Jobs:
        with self._lock:
            if self._cluster is None:
                self._cluster = Jobs(self._address)
            return self._cluster

    def _shown(self, runs: Sequence[Run], run: Run) -> dict[str, Any]:
        """A job as the API spells it, from its latest run."""
        error: str | None = run.reason or None
        progress = None
        try:
            progress = self._progress(run)
        except LongreelError as failure:  # also rows of another version, which are this job's alone
            error = error or f"its rows cannot be read: {failure}"
        return {
            "id": run.job_id,
            "object": "job",
            "status": _STATUS[run.state],
            "created": int(_created(runs, run)),
            "output": run.output,
            "progress": progress,
            "error": error,
            "owner": _owner(runs, run),
        }

    def _progress(self, run: Run) -> dict[str, Any] | None:
        with self._lock:
            if run.submission_id in self._ended:
                return self._ended[run.submission_id]
        found = standing(run.output)
        progress = None if found is None else _as_json(found)
        if not run.active:
            with self._lock:
                self._ended[run.submission_id] = progress
                if len(self._ended) > _REMEMBERED:
                    self._ended.popitem(last=False)
        return progress


class _Deployed:
    """``JobsService`` behind a handle; errors travel as values, which keep their one line."""

    def __init__(self, address: str) -> None:
        self._service = JobsService(address)

    def call(self, method: str, *arguments: Any) -> tuple[str, Any]:
        """``ok`` and what the method gives, or ``usage`` or ``failed`` and why it does not."""
        try:
            return "ok", getattr(self._service, method)(*arguments)
        except UsageError as failure:
            return "usage", str(failure)
        except LongreelError as failure:
            return "failed", str(failure)


def jobs_deployment(
    address: str | None = None, *, keep_out: str | None = None
) -> Application | None:
    """The bound deployment for ``serve.jobs.RemoteJobs``; None where the cluster has no Jobs API.

    Ray must be connected. A cluster that was started for this process alone has none.

    Args:
        address: of the Jobs API; None takes that of the environment, else of the connected
            cluster.
        keep_out: uri of what no job, nor what is looked at for one, may read or write.

    Raises:
        UsageError: the address is no ``http://`` address.
    """
    found = address or os.environ.get("RAY_API_SERVER_ADDRESS") or _dashboard()
    if found is None:
        return None
    try:
        found = jobs_address(found)
        Jobs(found)
    except UsageError:
        raise
    except LongreelError:
        return None
    deployed = serve.deployment(
        name="jobs",
        # A cancel waits in a thread until the job has written its rows out.
        max_ongoing_requests=64,
        ray_actor_options={"num_cpus": 0, "runtime_env": {"env_vars": {KEEP_OUT: keep_out or ""}}},
        logging_config=LoggingConfig(
            log_level="WARNING", enable_access_log=False, encoding=encoding()
        ),
    )(_Deployed)
    return deployed.bind(found)


def _dashboard() -> str | None:
    # Public is this only to whoever calls ``ray.init`` itself.
    url = getattr(ray._private.worker._global_node, "webui_url", None)
    return f"http://{url}" if url else None


def _latest(runs: Sequence[Run], job: str) -> Run | None:
    mine = [run for run in runs if run.job_id == job]
    return max(mine, key=lambda run: run.number, default=None)


def _created(runs: Sequence[Run], run: Run) -> float:
    return min((r.submitted_at for r in runs if r.job_id == run.job_id), default=run.submitted_at)


def _owner(runs: Sequence[Run], run: Run) -> str | None:
    """Of the job: where it was resumed from the command line, its first sender keeps it."""
    return next((r.owner for r in runs if r.job_id == run.job_id and r.owner), None)


def _as_json(found: Progress) -> dict[str, Any]:
    def counts(total: int, rows: Any) -> dict[str, int]:
        return {"total": total, **{status: rows[status] for status in (OK, PARTIAL, FAILED)}}

    return {
        "videos": counts(found.n_videos, found.videos),
        "segments": counts(found.n_segments, found.segments),
        "video_seconds": {
            "total": round(found.total_video_seconds, 3),
            "done": round(found.video_seconds, 3),
        },
        "frames": found.frames,
    }
