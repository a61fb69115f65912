"""Jobs on a running cluster, through its Ray Jobs API: sent, listed, followed, stopped."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import httpx
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from actors.objects import printable_uri
from longreel import __version__, errors
from longreel.errors import LongreelError, UsageError
from pipelines.entrypoint import STOP_WAIT_S, runtime_env
from pipelines.joblog import JobLog, reason

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
#: States of a run.
WAITING, RUNNING, FINISHED, NOT_ALL_OK, CANCELLED, FAILED = (
    "waiting",
    "running",
    "finished",
    "finished, not all ok",
    "cancelled",
    "failed",
)
_STATES = {
    JobStatus.PENDING: WAITING,
    JobStatus.RUNNING: RUNNING,
    JobStatus.SUCCEEDED: FINISHED,
    JobStatus.STOPPED: CANCELLED,
    JobStatus.FAILED: FAILED,
}
#: Ray's metadata of a job that is ours; its values are shown to everyone on the cluster.
_JOB, _RUN, _OUTPUT, _VERSION = (f"longreel_{name}" for name in ("job", "run", "output", "version"))
_OWNER = "longreel_owner"
_ANSWER_WITHIN_S = 10.0
_POLL_S = 0.5


@dataclass(frozen=True)
class Run:
    """One run of a job on a cluster; a job that was resumed has several.

    Attributes:
        number: 1 for the first on this cluster.
        submission_id: Ray's name of it.
        ray_status: Ray's word for its state.
        exit_status: of the driver, None while it runs or where it was killed.
        reason: why it failed, one line.
        submitted_at, ended_at: seconds since the epoch.
        owner: id of the API key that it was sent with, if any.
    """

    job_id: str
    number: int
    submission_id: str
    output: str
    state: str
    ray_status: str
    exit_status: int | None
    reason: str
    entrypoint: str
    submitted_at: float
    ended_at: float | None
    owner: str | None = None

    @property
    def active(self) -> bool:
        """Whether it may still write rows."""
        return self.state in (WAITING, RUNNING)

    @property
    def finished(self) -> bool:
        """Whether it ended with all videos ok."""
        return self.state == FINISHED

    @property
    def cancelled(self) -> bool:
        """Whether it was stopped on purpose."""
        return self.state == CANCELLED


def latest_of(runs: Iterable[Run]) -> list[Run]:
    """The latest run of each job."""
    return list({run.job_id: run for run in sorted(runs, key=lambda run: run.number)}.values())


def jobs_address(address: str | None) -> str:
    """The address of the Jobs API to use: the given one, that of the environment, or this machine.

    Raises:
        UsageError: it is no ``http://`` address.
    """
    found = address or os.environ.get("RAY_API_SERVER_ADDRESS")
    if not found and os.environ.get("RAY_ADDRESS", "").startswith(("http://", "https://")):
        found = os.environ["RAY_ADDRESS"]
    found = (found or DEFAULT_ADDRESS).rstrip("/")
    try:
        parts = urlsplit(found)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise UsageError(
            "the address of a cluster's Jobs API looks like http://host:8265, "
            f"not {printable_uri(found)!r}"
        )
    return found


class Jobs:
    """Our jobs on the cluster at ``address``; those of others are left alone and not shown.

    Raises:
        LongreelError: there is no cluster, or it cannot be used.
    """

    def __init__(self, address: str) -> None:
        self.name = printable_uri(address)
        headers = self._headers(address)
        for name in ("ray", "ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk"):
            logging.getLogger(name).setLevel(logging.ERROR)
        with self._asking(), _without("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
            # With either set, Ray's client would ignore the address that it is given.
            self._client = JobSubmissionClient(address, headers=headers)

    def runs(self) -> list[Run]:
        """Every run of ours, in the order they were sent."""
        with self._asking():
            found = [_run(each) for each in self._client.list_jobs()]
        return sorted((run for run in found if run), key=lambda run: run.submitted_at)

    def latest(self) -> list[Run]:
        """The latest run of each job, in the order they were sent."""
        return sorted(latest_of(self.runs()), key=lambda run: run.submitted_at)

    def find(self, name: str) -> Run | None:
        """The latest run of the job ``name``, or the run that Ray knows by that name."""
        for run in self.latest():
            if run.job_id == name:
                return run
        return next((run for run in self.runs() if run.submission_id == name), None)

    def get(self, name: str) -> Run:
        """``find``, but raises ``UsageError`` where there is none."""
        if run := self.find(name):
            return run
        raise UsageError(f"no job {name!r} on the cluster at {self.name}")

    def require_idle(self, job_id: str | None, output: str) -> None:
        """Refuse a job, or an output, that a run is still writing to. Raises ``UsageError``."""
        for run in self.latest():
            if run.active and (run.job_id == job_id or run.output == output):
                raise UsageError(f"job {run.job_id} is {run.state} already, into {run.output}")

    def send(
        self,
        job_id: str,
        output: str,
        entrypoint: str,
        code: Path | None,
        owner: str | None = None,
    ) -> Run:
        """Start a run of a job and return it.

        Args:
            entrypoint: its shell line.
            code: checkout to send with it, None where the cluster has longreel.
            owner: id of the API key that it is sent with, if any.

        Raises:
            UsageError: the job is running already.
        """
        self.require_idle(job_id, output)
        with self._asking():
            taken = {each.submission_id for each in self._client.list_jobs()}
        number = 1 + max((run.number for run in self.runs() if run.job_id == job_id), default=0)
        name = job_id if number == 1 else f"{job_id}-{number}"
        while name in taken:  # a job of another name ends in what would be our number
            number += 1
            name = f"{job_id}-{number}"
        metadata = {_JOB: job_id, _RUN: str(number), _OUTPUT: output, _VERSION: __version__}
        if owner is not None:
            metadata[_OWNER] = owner
        with self._asking():
            self._client.submit_job(
                entrypoint=entrypoint,
                submission_id=name,
                runtime_env=runtime_env(code),
                metadata={**metadata, "job_name": job_id},
            )
        return self._again(name)

    def cancel(self, run: Run) -> Run:
        """Stop a run and return it once it has ended, its rows written out.

        Raises:
            UsageError: it has ended before.
        """
        if run.active:
            with self._asking():
                self._client.stop_job(run.submission_id)
        # Ray kills what has not ended by itself after STOP_WAIT_S.
        deadline = time.monotonic() + STOP_WAIT_S + 30
        while run.active:
            if time.monotonic() > deadline:
                raise LongreelError(f"job {run.job_id} has been told to stop and still runs")
            time.sleep(_POLL_S)
            run = self._again(run.submission_id)
        return run

    def log(self, run: Run) -> str:
        """What the run has said so far."""
        with self._asking():
            text = self._client.get_job_logs(run.submission_id)
        log = JobLog(run.submission_id, run.entrypoint)
        return log.take(text) + log.end()

    def follow(self, run: Run, say: Callable[[str], None]) -> Run:
        """Pass on what the run has said and says until it ends; returns it as it ended."""
        with self._asking():
            asyncio.run(self._follow(run, say))
        while run.active:  # the log may end a moment before Ray notes how
            time.sleep(_POLL_S)
            run = self._again(run.submission_id)
        return run

    async def _follow(self, run: Run, say: Callable[[str], None]) -> None:
        log, seen = JobLog(run.submission_id, run.entrypoint), 0
        while True:
            at = 0
            try:
                async for piece in self._client.tail_job_logs(run.submission_id):
                    # A second connection begins at the start again.
                    new = piece[max(0, seen - at) :]
                    at += len(piece)
                    seen = max(seen, at)
                    say(log.take(new))
            except RuntimeError:  # the connection broke; the job need not have
                await asyncio.sleep(1)
            if not self._again(run.submission_id).active:
                break
        say(log.end())

    def _again(self, submission_id: str) -> Run:
        with self._asking():
            run = _run(self._client.get_job_info(submission_id))
        if run is None:
            raise LongreelError(f"{submission_id} on the cluster at {self.name} is no longer ours")
        return run

    def _headers(self, address: str) -> dict[str, str]:
        """What every request has to carry; the first answer is not waited for without an end.

        A token is sent only where one is asked for: the address may be mistyped.
        """
        for headers in ({}, _token_headers()):
            try:
                answer = httpx.get(
                    f"{address}/api/version", headers=headers, timeout=_ANSWER_WITHIN_S
                )
            except httpx.HTTPError as failure:
                why = str(failure) or type(failure).__name__
                raise LongreelError(f"no Ray cluster at {self.name}: {why}") from None
            if answer.status_code not in (401, 403):
                break
        if answer.status_code in (401, 403):
            raise LongreelError(
                f"the cluster at {self.name} asks for its token; put it into RAY_AUTH_TOKEN, "
                "a file that RAY_AUTH_TOKEN_PATH names, or ~/.ray/auth_token"
            )
        if answer.status_code != 200 or "ray_version" not in answer.text:
            raise LongreelError(f"what answers at {self.name} is no Ray Jobs API")
        return headers

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except AuthenticationError as failure:
            why = str(failure).strip().splitlines()[0]
            raise LongreelError(f"the cluster at {self.name} refuses: {why}") from None
        except (requests.RequestException, aiohttp.ClientError, ConnectionError) as failure:
            why = type(failure).__name__
            raise LongreelError(f"lost the cluster at {self.name}: {why}") from None
        except RuntimeError as failure:
            lines = [line.strip() for line in str(failure).splitlines() if line.strip()]
            why = lines[-1] if lines else type(failure).__name__
            raise LongreelError(f"the cluster at {self.name} refuses: {why}") from None


def _run(details: JobDetails) -> Run | None:
    """Ray's account of a job as ours, None when it is another's."""
    metadata = details.metadata or {}
    if not details.submission_id or not metadata.keys() >= {_JOB, _RUN, _OUTPUT}:
        return None
    state = _STATES[details.status]
    if state == FAILED and details.driver_exit_code == errors.NOT_ALL_OK:
        state = NOT_ALL_OK
    return Run(
        job_id=metadata[_JOB],
        number=int(metadata[_RUN]),
        submission_id=details.submission_id,
        output=metadata[_OUTPUT],
        state=state,
        ray_status=details.status.value,
        exit_status=details.driver_exit_code,
        reason=reason(details.message or "") if state == FAILED else "",
        entrypoint=details.entrypoint,
        submitted_at=(details.start_time or 0) / 1000,
        ended_at=details.end_time / 1000 if details.end_time else None,
        owner=metadata.get(_OWNER),
    )


def _token_headers() -> dict[str, str]:
    """Ray's token, from where Ray looks for it; Ray's client sends it in token mode alone."""
    token = os.environ.get("RAY_AUTH_TOKEN", "").strip()
    if not token:
        file = os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token"
        with suppress(OSError):
            token = Path(file).read_text().strip()
    return {"Authorization": f"Bearer {token}"} if token else {}


@contextmanager
def _without(*names: str) -> Iterator[None]:
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)
