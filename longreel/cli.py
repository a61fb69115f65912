"""The command line. Everything heavy is imported inside the command that needs it."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from longreel import __version__, assemble_cli, chat_cli, jobs_cli, keys_cli, watch_cli
from longreel.errors import (
    INTERRUPTED,
    JOB_FAILED,
    NOT_ALL_OK,
    WRONG_USE,
    LongreelError,
    UsageError,
)
from longreel.options import (
    Address,
    GpusPerReplica,
    KeepRatio,
    Model,
    Quantize,
    Replicas,
    Router,
    State,
    asks_for_keys,
    is_local_only,
    is_loopback,
    state_uri,
    takes_request,
)

if TYPE_CHECKING:
    from pipelines.job import SummarizeRequest

app = typer.Typer(
    name="longreel",
    help="Hours of video to timestamped narrations and summaries.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Dest = Annotated[str, typer.Argument(metavar="DEST", help="What --output was.", show_default=False)]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"longreel {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    del version


@app.command()
@takes_request
def summarize(request: SummarizeRequest, address: Address = None) -> None:
    """Narrate and summarize videos into Parquet rows under DEST.

    Run again with the same DEST it does what is still missing. Exit status: 0 all videos ok;
    3 finished, some videos failed or are partial (their rows say why); 1 the job failed;
    2 wrong use.
    """
    from rich.console import Console

    from longreel.progress import ProgressView
    from longreel.show import render_table
    from mod.checkpoint import find_checkpoint
    from pipelines.job import is_planned, job_recipe
    from pipelines.resources import JOB_CPUS
    from pipelines.results import load_results

    # Refuses what cannot work before anything starts.
    room = _room(address, request.num_gpus, request.quantize)
    job_recipe(request, find_checkpoint(request.model, check=room))
    if not is_planned(request.output):  # what is begun may need no replica any more
        _refuse_more_than_here(address, request.min_replicas, request.num_gpus, beside=JOB_CPUS)
    from pipelines.summarize import summarize as run

    with (
        _interruptible(),
        _terminal() as terminal,
        ProgressView(Console(file=terminal)) as view,
    ):
        outcome = run(replace(request, address=address), view.update)
    out = Console()
    out.print(render_table(*load_results(request.output)))
    out.print(
        f"{outcome.job_id} took {outcome.seconds:.1f} s; rows in {request.output}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    if outcome.progress.videos["failed"] or outcome.progress.videos["partial"]:
        raise typer.Exit(NOT_ALL_OK)


def _terminal() -> TextIO:
    """A duplicate of it: the job may filter what libraries write to its own descriptor."""
    return open(os.dup(2), "w", errors="backslashreplace")


def _room(address: str | None, gpus: float, quantize: str | None) -> Callable[[Path], None]:
    """Refuses weights that this machine cannot hold, where it is the one that will load them."""

    def check(folder: Path) -> None:
        from mod.weights import available_bytes, refuse_larger_than
        from pipelines.local import starts_one

        if not gpus and starts_one(address):
            refuse_larger_than(available_bytes(), folder, quantize)

    return check


def _refuse_more_than_here(
    address: str | None, replicas: int, gpus: float, *, beside: int = 0
) -> None:
    """Refuses replicas that never all come up, where this machine is the whole cluster.

    Raises:
        UsageError: it has fewer CPUs or GPUs.
    """
    from pipelines.local import starts_one
    from pipelines.resources import here, refuse_replicas

    if starts_one(address):
        refuse_replicas(max(1, replicas), gpus, here(gpus=gpus > 0), beside=beside)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ends the command in its own words where Ctrl-C ends the job."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("longreel: interrupted; the same command goes on from here", err=True)
        raise typer.Exit(INTERRUPTED) from None


app.command()(jobs_cli.submit)
app.add_typer(jobs_cli.jobs, name="jobs")


@app.command()
def show(
    dest: Dest,
    narrations: Annotated[int, typer.Option(help="Narrations shown of each video.")] = 5,
) -> None:
    """Print what a job wrote: videos, summaries, narrations, figures."""
    from rich.console import Console

    from longreel.show import render_table
    from pipelines.results import load_results

    Console().print(render_table(*load_results(dest), narrations=narrations))


@app.command()
def report(
    dest: Dest,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="HTML file to write.")
    ] = Path("report.html"),
    title: Annotated[
        str | None, typer.Option(help="Heading of the page.", show_default="DEST's name")
    ] = None,
) -> None:
    """Write one self-contained HTML page: timelines, keyframes, narrations, figures."""
    import time

    from longreel.report import render_report
    from pipelines.results import load_results

    videos, segments = load_results(dest)
    page = render_report(
        videos,
        segments,
        title=title or dest.rstrip("/").rsplit("/", 1)[-1],
        generated_at=time.strftime("%Y-%m-%d %H:%M"),
    )
    try:
        output.write_text(page, encoding="utf-8")
    except OSError as failure:
        raise LongreelError(f"cannot write {output}: {failure.strerror}") from None
    typer.echo(f"wrote {output}")


@app.command()
def serve(
    model: Model = "longreel-tiny",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8000,
    keep_ratio: KeepRatio = None,
    router: Router = None,
    quantize: Quantize = None,
    replicas: Replicas = "1",
    gpus_per_replica: GpusPerReplica = 0.0,
    state: State = None,
    keys: Annotated[
        str | None,
        typer.Option(
            metavar="required|off",
            help="Whether clients need an API key (longreel keys create).",
            show_default="off on a loopback address, else required",
        ),
    ] = None,
    summarizer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            help="Endpoint that jobs of clients with keys may name as theirs; may be given again.",
            show_default="none",
        ),
    ] = None,
    metrics_key: Annotated[
        bool,
        typer.Option(
            "--metrics-key",
            help="Ask for a key at /metrics too, where clients need one.",
            show_default="it is open",
        ),
    ] = False,
    s3_bucket: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Bucket that s3:// URLs of clients may name; may be given again.",
            show_default="none",
        ),
    ] = None,
    allow_private_urls: Annotated[
        bool,
        typer.Option(
            "--allow-private-urls",
            help="Fetch URLs of clients from private and loopback addresses too.",
            show_default="refuse to",
        ),
    ] = False,
    decode_timeout: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            min=1,
            help="Longest time to decode a minute of a client's video; a picture has 10 s at most.",
        ),
    ] = 60.0,
    decode_memory: Annotated[
        float,
        typer.Option(
            metavar="GIB", min=0.25, help="Memory of each process that decodes clients' media."
        ),
    ] = 2.0,
    address: Address = None,
) -> None:
    """Serve the model until interrupted; jobs on the same cluster share its replicas.

    Live sessions outlive replicas, and the service itself: started again with the same --state it
    goes on with them.
    """
    import threading

    from longreel.deployed import ServiceArgs
    from longreel.readable import size
    from mod.checkpoint import find_checkpoint
    from mod.weights import loaded_bytes
    from pipelines.cluster import connected
    from pipelines.jobs_service import jobs_deployment
    from pipelines.local import starts_one
    from serve.app import deploy
    from serve.directory import leaving
    from serve.routes.context import ApiSettings

    store = state_uri(state)
    with_keys = asks_for_keys(keys, host)
    args = ServiceArgs(
        model=model,
        keep_ratio=keep_ratio,
        router=router,
        quantize=quantize,
        gpus_per_replica=gpus_per_replica,
        state=store,
        api=ApiSettings(
            decode_timeout_s=decode_timeout,
            decode_memory_bytes=int(decode_memory * 2**30),
            allow_private_urls=allow_private_urls,
            s3_buckets=s3_bucket or (),
            keys=with_keys,
            summarizers=summarizer or (),
            metrics_key=metrics_key,
            local_only=is_local_only(keys, host),
        ),
    )
    plan = args.plan(replicas, check=_room(address, gpus_per_replica, quantize))
    _refuse_more_than_here(address, plan.min_replicas, gpus_per_replica)
    needed = loaded_bytes(find_checkpoint(model).folder, quantize, on_gpu=gpus_per_replica > 0)
    if not with_keys and not is_loopback(host):
        typer.echo(
            f"longreel: warning: with --keys off whoever reaches {host}:{port} may use the service",
            err=True,
        )
    ends = leaving(store) if starts_one(address) else nullcontext()
    with connected(address, takes_jobs=True), ends, suppress(KeyboardInterrupt):
        typer.echo(f"loading {model}: {size(needed)} of weights in each replica")
        jobs = jobs_deployment(keep_out=args.keep_out)
        deploy(plan, http=(host, port), settings=args.api, jobs=jobs)
        for line in _where(model, host, port, store):
            typer.echo(line)
        if with_keys:
            typer.echo(f"  keys      longreel keys create NAME --state {shlex.quote(store)}")
        threading.Event().wait()


def _where(model: str, host: str, port: int, state: str) -> Iterator[str]:
    """What is said of a service that answers."""
    # The address that stands for all of them cannot be opened.
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    base = f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"
    yield f"serving {model} on {base}; Ctrl-C stops it"
    yield f"  console   {base}/"
    yield f"  API       {base}/docs"
    yield f"  metrics   {base}/metrics"
    yield f"  sessions and files are kept in {state}"


app.command()(chat_cli.chat)
app.add_typer(keys_cli.keys, name="keys")
app.command()(watch_cli.watch)
app.command()(assemble_cli.assemble)


@app.command()
def train(
    output: Annotated[
        str,
        typer.Option(
            "--output", "-o", help="Folder that all workers share, or s3:// prefix, of the result."
        ),
    ],
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Recipe of the training, a TOML file.",
            show_default="the recipe of longreel-tiny",
        ),
    ] = None,
    address: Address = None,
) -> None:
    """Train a model on narrated videos of your own, or longreel-tiny on generated ones.

    Run again after a kill, the same command goes on from the last saved state.
    """
    from longreel.training import TrainingView
    from mod.recipe import TrainRecipe, read_recipe

    recipe = TrainRecipe() if config is None else read_recipe(config)
    from pipelines.train import train as run

    view = TrainingView(typer.echo)
    with _interruptible():
        metrics = run(recipe, output, lambda told: view.show(told.kind, told.values), address)
    view.metrics(metrics)
    typer.echo(f"wrote {output}")


def main() -> None:
    """Entry point: known errors become one line and an exit status."""
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, TextIOWrapper):
            # A character that a terminal or pipe does not have is no reason to fail.
            stream.reconfigure(errors="replace")
    try:
        app()
    except LongreelError as failure:
        from longreel.readable import prose

        # It may hold a name that comes from outside.
        typer.echo(f"longreel: {prose(failure)}", err=True)
        sys.exit(WRONG_USE if isinstance(failure, UsageError) else JOB_FAILED)


if __name__ == "__main__":
    main()
