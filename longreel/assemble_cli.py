"""``longreel assemble``: a checkpoint from pretrained parts on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


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
    keep_schedule: Annotated[
        str,
        typer.Option(
            metavar="KIND",
            help="constant, or shifted_cosine: the share falls over the depth, --keep-ratio is "
            "its mean.",
        ),
    ] = "constant",
    keep_ratios: Annotated[
        str | None,
        typer.Option(
            metavar="R,R,...",
            help="A share for each layer that routes, in place of --keep-ratio.",
            show_default="none",
        ),
    ] = None,
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
        keep_schedule=keep_schedule,
        keep_ratios=keep_ratios,
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
