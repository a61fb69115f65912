"""Commands for jobs on a running Ray cluster: ``longreel submit`` and ``longreel jobs``."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from longreel.errors import (
    INTERRUPTED,
    JOB_FAILED,
    LongreelError,
    UsageError,
)
from longreel.options import takes_request

if TYPE_CHECKING:
    from actors.progress import Progress
    from pipelines.job import SummarizeRequest
    from pipelines.submission import Jobs, Run

jobs = typer.Typer(
    help="Jobs that were submitted to a cluster: list, status, logs, cancel, resume.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Address = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Ray Jobs API of the cluster.",
        show_default="RAY_API_SERVER_ADDRESS, else RAY_ADDRESS when it is http://, else "
        "http://127.0.0.1:8265",
    ),
]
NoUpload = Annotated[
    bool,
    typer.Option(
        "--no-upload",
        help="Send no code: the cluster's image has longreel.",
        show_default="a checkout is sent, an installed longreel is not",
    ),
]
Wait = Annotated[
    bool,
    typer.Option(
        "--wait",
        help="Show what the job says until it ends, and end with its exit status.",
        show_default="return at once",
    ),
]
JobId = Annotated[
    str, typer.Argument(metavar="JOB", help="Id that submit printed.", show_default=False)
]


@takes_request
def submit(
    request: SummarizeRequest,
    address: Address = None,
    wait: Wait = False,
    no_upload: NoUpload = False,
    no_check: Annotated[
        bool,
        typer.Option(
            "--no-check",
            help="Do not look from here at local SOURCEs, DEST and model: they are paths on the "
            "cluster.",
            show_default="what cannot be used from here is refused",
        ),
    ] = False,
) -> None:
    """Send a job to a running Ray cluster: what summarize does, with the same arguments.

    Prints the job's id and returns. Local paths must mean the same on every node. The cluster
    reads and writes s3:// with credentials of its own; none are sent.
    """
    from pipelines.entrypoint import entrypoint
    from pipelines.sending import ready_to_send

    ready = ready_to_send(request, look=not no_check)
    assert ready.job_id is not None
    line = entrypoint(ready, ready.job_id)
    _send(_connect(address), ready.job_id, ready.output, line, address, wait, no_upload)


@jobs.command("list")
def list_jobs(address: Address = None) -> None:
    """List the jobs that were submitted to a cluster, each with its latest run."""
    from rich.console import Console

    from longreel.jobs_view import jobs_table

    # No terminal, no width: a line stays one line for grep and awk.
    console = Console(width=None if sys.stdout.isatty() else 10_000)
    console.print(jobs_table(_connect(address).latest(), time.time()))


@jobs.command()
def status(job: JobId, address: Address = None) -> None:
    """Tell how a job stands: its state, its progress counted from DEST, why it failed."""
    from longreel.jobs_view import account

    run = _connect(address).get(job)
    progress, unseen = _standing(run)
    for line in account(run, progress, unseen, time.time()):
        typer.echo(line)
    if not run.active and not run.finished:
        typer.echo(f"{'next':<10} {_command('resume', run.job_id, address)}")


@jobs.command()
def logs(
    job: JobId,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow", "-f", help="Go on until the job ends.", show_default="what there is"
        ),
    ] = False,
    address: Address = None,
) -> None:
    """Print what a job has said: progress, failures, the table at its end."""
    cluster = _connect(address)
    run = cluster.get(job)
    if not follow:
        _print_log(cluster.log(run))
        return
    _follow(cluster, run, address)


@jobs.command()
def cancel(job: JobId, address: Address = None) -> None:
    """Stop a job. What it has worked out is kept, and resume goes on from there."""
    from longreel.jobs_view import done_of
    from longreel.readable import prose

    cluster = _connect(address)
    run = cluster.get(job)
    if not run.active:
        raise UsageError(f"job {run.job_id} has ended already ({run.state}): nothing to cancel")
    run = cluster.cancel(run)
    progress, unseen = _standing(run)
    how_far = f"its rows are unknown, {unseen}" if unseen else done_of(progress)
    typer.echo(f"{run.job_id} is {run.state}; {prose(how_far)}")
    if not run.finished:
        typer.echo(f"{_command('resume', run.job_id, address)} goes on from there", err=True)


@jobs.command()
def resume(
    job: Annotated[
        str,
        typer.Argument(
            metavar="JOB|DEST",
            help="Id of the job, or where its rows are, also when its cluster is gone.",
            show_default=False,
        ),
    ],
    address: Address = None,
    wait: Wait = False,
    no_upload: NoUpload = False,
) -> None:
    """Send a job again that was cancelled, failed or cut off; it does what is still missing."""
    from pipelines.entrypoint import entrypoint
    from pipelines.sending import request_to_resume

    named_by_place = "/" in job
    request = request_to_resume(job) if named_by_place else None
    cluster = _connect(address)
    run = None if named_by_place else cluster.find(job)
    if run is not None:
        if run.finished:
            raise UsageError(f"job {run.job_id} has finished: nothing to resume")
        _send(cluster, run.job_id, run.output, run.entrypoint, address, wait, no_upload)
        return
    if request is None:
        if not os.path.isdir(job):
            raise UsageError(
                f"no job {job!r} on that cluster; if it ran on another, resume its DEST"
            )
        request = request_to_resume(job)
    job_id = request.job_id or ""
    line = entrypoint(request, job_id)
    _send(cluster, job_id, request.output, line, address, wait, no_upload)


def _connect(address: str | None) -> Jobs:
    from pipelines.submission import Jobs, jobs_address

    return Jobs(jobs_address(address))


def _send(
    cluster: Jobs,
    job_id: str,
    output: str,
    line: str,
    address: str | None,
    wait: bool,
    no_upload: bool,
) -> None:
    from pipelines.entrypoint import checkout

    run = cluster.send(job_id, output, line, None if no_upload else checkout())
    typer.echo(run.job_id)
    if wait:
        _follow(cluster, run, address, its_status=True)
        return
    typer.echo(f"{run.job_id} is sent to {cluster.name}; its rows come to {output}", err=True)
    for verb, told in (("status", ""), ("logs", " --follow"), ("cancel", "")):
        typer.echo(f"  {_command(verb, run.job_id, address)}{told}", err=True)


def _follow(cluster: Jobs, run: Run, address: str | None, its_status: bool = False) -> None:
    """Show a run's log to its end; with ``its_status``, end as it did."""
    from longreel.readable import prose

    try:
        run = cluster.follow(run, _print_log)
    except KeyboardInterrupt:
        stop = _command("cancel", run.job_id, address)
        typer.echo(f"longreel: {run.job_id} goes on; {stop} stops it", err=True)
        raise typer.Exit(INTERRUPTED) from None
    if not its_status or run.finished:
        return
    if run.cancelled:
        typer.echo(f"longreel: {run.job_id} was cancelled", err=True)
        raise typer.Exit(INTERRUPTED)
    if run.exit_status is None or run.exit_status < 0:
        typer.echo(f"longreel: {run.job_id} failed: {prose(run.reason)}", err=True)
    raise typer.Exit(max(run.exit_status or 0, 0) or JOB_FAILED)


def _print_log(text: str) -> None:
    """Lines of a log as they are; harmless where they go to a terminal."""
    from longreel.readable import visible_lines

    typer.echo(visible_lines(text) if sys.stdout.isatty() else text, nl=False)


def _standing(run: Run) -> tuple[Progress | None, str | None]:
    """Progress as it lies in the run's output, and why it could not be read, if so."""
    from pipelines.standing import standing

    try:
        return standing(run.output), None
    except LongreelError as failure:
        return None, str(failure)


def _command(verb: str, job_id: str, address: str | None) -> str:
    where = f" --address {address}" if address else ""
    return f"longreel jobs {verb} {job_id}{where}"
