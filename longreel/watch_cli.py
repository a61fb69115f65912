"""``longreel watch``: what a running service says of a video or live source, as it comes."""

from __future__ import annotations

import asyncio
import math
import sys
from typing import Annotated

import typer

from longreel.errors import INTERRUPTED, UsageError
from longreel.options import ApiKey, Server, require_unicode
from longreel.stopping import stopped_as_by_ctrl_c


def watch(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="Video file, folder or glob of pictures, or '-' for a video on standard input, "
            "which are decoded here; or an rtsp://, http(s):// or s3:// URL, which the service "
            "pulls.",
            show_default=False,
        ),
    ],
    ask: Annotated[
        str | None,
        typer.Option(metavar="QUESTION", help="Asked at the end.", show_default="nothing"),
    ] = None,
    speed: Annotated[
        float,
        typer.Option(
            help="Pace of what is decoded here: 1 is its own, 2 twice as fast, 0 as fast as the "
            "service goes."
        ),
    ] = 1.0,
    local: Annotated[
        bool,
        typer.Option("--local", help="Decode a URL here.", show_default="the service pulls it"),
    ] = False,
    reconnect: Annotated[
        bool,
        typer.Option(
            "--reconnect",
            help="Have the service open a live URL again when it breaks off.",
            show_default="the end of the URL is the end",
        ),
    ] = False,
    instructions: Annotated[
        str | None,
        typer.Option(help="Instruction to the narrator.", show_default="the model's own"),
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(help="Frames a second that the model sees.", show_default="the model's own"),
    ] = None,
    silence_threshold: Annotated[
        float,
        typer.Option(
            help="Probability (0-1) that silence must reach for the model to stay silent; higher "
            "makes it speak more."
        ),
    ] = 0.0,
    memory: Annotated[
        str, typer.Option(help="What it remembers: 'full', 'window' or 'retrieve'.")
    ] = "window",
    server: Server = None,
    api_key: ApiKey = None,
) -> None:
    """Print what the model says of a source as it comes, each line with its time.

    In a terminal, a typed line is a question, and its answer is printed too. Ctrl-C closes the
    session and prints what was seen. A service that restarts is waited for.
    """
    from rich.console import Console

    from longreel.client import AsyncClient
    from longreel.watch_run import Watch, Wish
    from longreel.watch_view import WatchView

    if not 0.0 <= speed < float("inf"):
        raise UsageError(f"--speed must be 0 or more, not {speed:g}")
    for name, value in (("--fps", fps), ("--silence-threshold", silence_threshold)):
        if value is not None and not math.isfinite(value):
            raise UsageError(f"{name} must be a finite number, not {value:g}")
    require_unicode(**{"--ask": ask, "--instructions": instructions})
    wish = Wish(
        source=source,
        pulled=_is_address(source) and not local,
        reconnect=reconnect,
        speed=speed,
        ask=ask,
        options={
            "instructions": instructions,
            "fps": fps,
            "silence_threshold": silence_threshold,
            "memory": memory,
        },
        lines=source != "-" and sys.stdin.isatty(),
    )
    view = WatchView(Console(), Console(stderr=True))

    async def run() -> None:
        client = AsyncClient(server, api_key, patience=_PATIENCE_S, on_retry=view.waiting)
        async with client:
            await Watch(client, wish, view).run()

    try:
        with stopped_as_by_ctrl_c():
            asyncio.run(run())
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


#: A cluster that moves everything to other machines takes minutes.
_PATIENCE_S = 300.0


def _is_address(source: str) -> bool:
    return source.startswith(("rtsp://", "rtsps://", "http://", "https://", "s3://"))
