"""The command line. Everything heavy is imported inside the command that needs it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from longreel import __version__, chat_cli, jobs_cli, watch_cli
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
    replica_bounds,
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
    from pipelines.job import job_recipe
    from pipelines.results import load_results

    # Refuses what cannot work before anything starts.
    job_recipe(request, find_checkpoint(request.model))
    from pipelines.summarize import summarize as run

    # A duplicate: the job may filter what libraries write to the terminal's own descriptor.
    with (
        _interruptible(),
        open(os.dup(2), "w") as terminal,
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
    state: Annotated[
        str | None,
        typer.Option(
            metavar="URI",
            help="Folder or s3://bucket/prefix where sessions and files outlive the service; all "
            "nodes must reach it.",
            show_default="~/.local/state/longreel",
        ),
    ] = None,
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
    address: Address = None,
) -> None:
    """Serve the model until interrupted; jobs on the same cluster share its replicas.

    Live sessions outlive replicas, and the service itself: started again with the same --state it
    goes on with them.
    """
    import threading

    from longreel.readable import size
    from mod.checkpoint import find_checkpoint, weight_bytes
    from mod.choice import choose_router, require_router
    from mod.quantized import check_quantize
    from pipelines.cluster import connected
    from pipelines.jobs_service import jobs_deployment
    from serve.app import ReplicaPlan, deploy
    from serve.routes.context import ApiSettings

    checkpoint = find_checkpoint(model)
    chosen = None if router is None else choose_router(router, checkpoint)
    require_router(keep_ratio, chosen.kind if chosen else None, checkpoint)
    check_quantize(quantize)
    low, high = replica_bounds(replicas)
    store = state or os.path.join(
        os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state"), "longreel"
    )
    plan = ReplicaPlan(
        model,
        keep_ratio,
        low,
        high,
        gpus_per_replica,
        state=store,
        router=router,
        quantize=quantize,
    )
    needed = weight_bytes(checkpoint.folder, None if gpus_per_replica else 4, quantize)
    settings = ApiSettings(allow_private_urls=allow_private_urls, s3_buckets=s3_bucket or ())
    with connected(address, takes_jobs=True), suppress(KeyboardInterrupt):
        typer.echo(f"loading {model}: {size(needed)} of weights in each replica")
        deploy(plan, http=(host, port), settings=settings, jobs=jobs_deployment())
        typer.echo(f"serving {model} on http://{host}:{port} (API at /docs); Ctrl-C stops it")
        threading.Event().wait()


app.command()(chat_cli.chat)
app.command()(watch_cli.watch)


@app.command()
def assemble(
    vision: Annotated[
        Path,
        typer.Option(metavar="FOLDER", help="SigLIP model, whole or its vision half."),
    ],
    lm: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER",
            help="Decoder-only language model with its tokenizer, as transformers saves them.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder of the checkpoint.")
    ],
    lora: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="LoRA of the language model, as peft saves it, with or without a connector.",
            show_default="none",
        ),
    ] = None,
    keep_ratio: Annotated[
        float,
        typer.Option(help="Share (0-1] of a frame's vision tokens that run in MoD layers."),
    ] = 0.2,
    mod_layers: Annotated[
        str,
        typer.Option(
            metavar="PLACEMENT",
            help="Layers that route: interleaved, interleaved-deep, all, all-deep, after-2 "
            "(or another number), or their numbers from 0 such as 1,3,5.",
        ),
    ] = "interleaved",
    router: Annotated[
        str,
        typer.Option(
            metavar="KIND",
            help="How tokens are chosen: bounded (starts as the dense model), learned, uniform, "
            "random, redundancy, norm, attention, skip, or none.",
        ),
    ] = "bounded",
    pool_grid: Annotated[
        int, typer.Option(metavar="N", help="Patches of a frame are pooled to N x N tokens.")
    ] = 3,
    fps: Annotated[float, typer.Option(help="Frames per second of video that it will see.")] = 2.0,
    silence_token: Annotated[
        str | None,
        typer.Option(
            metavar="TOKEN",
            help="Token that stands for silence; added where the tokenizer lacks it.",
            show_default="',' where --lora brings a connector, else a new token",
        ),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            metavar="LAYOUT",
            help="How text stands around frames: marks (ours), or online (VideoLLM-online's).",
            show_default="online where --lora brings a connector, else marks",
        ),
    ] = None,
    max_shard_size: Annotated[
        str, typer.Option(metavar="SIZE", help="Largest weight file, in MB or GB.")
    ] = "5GB",
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Replace the checkpoint at --output.", show_default="refuse to"
        ),
    ] = False,
) -> None:
    """Build a VideoLLM-MoD checkpoint from pretrained parts on this machine.

    Text comes out as from the language model with its LoRA, and at --keep-ratio 1 so does video.
    Nothing is trained or downloaded.
    """
    from mod.assemble import Assembly
    from mod.assemble import assemble as run

    assembly = Assembly(
        vision=vision,
        lm=lm,
        output=output,
        lora=lora,
        keep_ratio=keep_ratio,
        mod_layers=mod_layers,
        router=router,
        pool_grid=pool_grid,
        fps=fps,
        silence_token=silence_token,
        layout=layout,
        max_shard_size=max_shard_size,
        force=force,
    )
    for line in run(assembly):
        typer.echo(line)
    typer.echo(f"wrote {output}")


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
    try:
        app()
    except UsageError as failure:
        typer.echo(f"longreel: {failure}", err=True)
        sys.exit(WRONG_USE)
    except LongreelError as failure:
        typer.echo(f"longreel: {failure}", err=True)
        sys.exit(JOB_FAILED)


if __name__ == "__main__":
    main()
