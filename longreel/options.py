"""Options that several commands share, each said once."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from longreel.errors import UsageError

if TYPE_CHECKING:
    from pipelines.job import SummarizeRequest

Model = Annotated[
    str,
    typer.Option(
        help="'longreel-tiny', the folder of a checkpoint, or the name of an open video model's "
        "repository on the Hugging Face hub."
    ),
]
KeepRatio = Annotated[
    float | None,
    typer.Option(
        help="Share (0-1] of a frame's vision tokens that run in the model's MoD layers.",
        show_default="the model's own",
    ),
]
Router = Annotated[
    str | None,
    typer.Option(
        metavar="KIND[:LAYERS]",
        help="What chooses those tokens. redundancy, norm and attention need no training and so "
        "work with any model; layers such as redundancy:after-2 or redundancy:1,3,5 take the place "
        "of the model's MoD layers.",
        show_default="the model's own",
    ),
]
Quantize = Annotated[
    str | None,
    typer.Option(
        metavar="KIND",
        help="Hold the decoder's weights in fewer bits: int8 or int4 (needs longreel[quantize]).",
        show_default="those of the checkpoint",
    ),
]
Replicas = Annotated[
    str, typer.Option(help="Model replicas: a number, or MIN:MAX between which they autoscale.")
]
GpusPerReplica = Annotated[
    float, typer.Option(help="GPUs of each model replica; 0 runs the model on the CPU.")
]
Address = Annotated[
    str | None,
    typer.Option(
        help="Ray cluster to use, such as 'auto' or 'ray://host:10001'.",
        show_default="RAY_ADDRESS, else a cluster started here",
    ),
]
Server = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Address of the service.",
        show_default="LONGREEL_SERVER, else http://127.0.0.1:8000",
    ),
]
ApiKey = Annotated[
    str | None,
    typer.Option(
        metavar="KEY",
        help="Key for the service, where it asks for one.",
        show_default="LONGREEL_API_KEY",
    ),
]


State = Annotated[
    str | None,
    typer.Option(
        metavar="URI",
        help="Folder or s3://bucket/prefix where sessions, files and keys outlive the service; all "
        "nodes must reach it.",
        show_default="~/.local/state/longreel",
    ),
]


def require_unicode(**given: str | None) -> None:
    """Refuses words that no service can be sent.

    Args:
        given: by the name of the option or argument.

    Raises:
        UsageError: one is not UTF-8.
    """
    from longreel.readable import is_unicode

    for name, text in given.items():
        if text is not None and not is_unicode(text):
            raise UsageError(f"{name} is not UTF-8: {text!r}")


def state_uri(given: str | None) -> str:
    """The state store that ``--state`` names, or this user's own; no relative path.

    Its processes work in other folders than the one where the command was typed.
    """
    home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    found = given or os.path.join(home, "longreel")
    return found if "://" in found else os.path.abspath(found)


def asks_for_keys(wanted: str | None, host: str) -> bool:
    """Whether a service that listens on ``host`` asks for API keys.

    Args:
        wanted: ``required`` or ``off``; None asks wherever others than this machine can connect.

    Raises:
        UsageError: ``wanted`` is neither.
    """
    if wanted not in (None, "required", "off"):
        raise UsageError(f"--keys is 'required' or 'off', not {wanted!r}")
    return wanted == "required" if wanted else not is_loopback(host)


def is_local_only(wanted: str | None, host: str) -> bool:
    """Whether a service asks for no key because it is for this machine alone.

    Not where ``off`` was said: whoever says so has thought of who reaches it.
    """
    return wanted is None and is_loopback(host)


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to what listens on ``host``."""
    import ipaddress

    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def replica_bounds(text: str) -> tuple[int, int]:
    """The smallest and largest number of replicas that ``--replicas`` asks for.

    Raises:
        UsageError: they are no bounds.
    """
    low, _, high = text.partition(":")
    try:
        bounds = int(low), int(high or low)
    except ValueError:
        raise UsageError(f"--replicas must be a number or MIN:MAX, not {text!r}") from None
    if not 0 <= bounds[0] <= bounds[1] or not bounds[1]:
        raise UsageError(f"--replicas needs 0 <= MIN <= MAX and a MAX of 1 or more, not {text!r}")
    return bounds


def _request(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Files, folders, globs, s3://bucket/prefix, or manifests (Parquet, CSV or JSONL "
            "with a 'uri' column).",
            show_default=False,
        ),
    ],
    output: Annotated[
        str,
        typer.Option(
            "--output", "-o", metavar="DEST", help="Folder or s3://bucket/prefix for the rows."
        ),
    ],
    model: Model = "longreel-tiny",
    fps: Annotated[
        float | None,
        typer.Option(
            help="Frames sampled per second of video.", show_default="the model's own, 1 or 2"
        ),
    ] = None,
    segment_seconds: Annotated[
        float, typer.Option(help="Wished length of a segment, in seconds of video.")
    ] = 30.0,
    prompt: Annotated[
        str | None,
        typer.Option(help="Instruction to the narrator.", show_default="the model's own"),
    ] = None,
    keep_ratio: KeepRatio = None,
    router: Router = None,
    quantize: Quantize = None,
    silence_threshold: Annotated[
        float,
        typer.Option(
            help="Probability (0-1) that silence must reach for the model to stay silent; higher "
            "makes it speak more. At 0 it speaks whenever a word is likelier than silence."
        ),
    ] = 0.0,
    mode: Annotated[
        str,
        typer.Option(
            help="'segments' narrates a video's segments side by side, each as a stream of its "
            "own; 'stream' takes them in order through one stream, with what was seen before."
        ),
    ] = "segments",
    summarizer: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="OpenAI-compatible endpoint that summarizes narrations, such as "
            "http://host:8000/v1; its key is taken from LONGREEL_SUMMARIZER_API_KEY.",
            show_default="the model itself",
        ),
    ] = None,
    summarizer_model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Model of --summarizer.", show_default="its first"),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            help="Workers that decode, one CPU each; 0 means one per core, or all a cluster has."
        ),
    ] = 0,
    replicas: Replicas = "1",
    gpus_per_replica: GpusPerReplica = 0.0,
    job_id: Annotated[
        str | None,
        typer.Option(help="Name of the job in its rows.", show_default="made from date and time"),
    ] = None,
) -> SummarizeRequest:
    from pipelines.job import SummarizeRequest

    low, high = replica_bounds(replicas)
    return SummarizeRequest(
        sources=tuple(sources),
        output=output,
        model=model,
        fps=fps,
        segment_s=segment_seconds,
        prompt=prompt,
        keep_ratio=keep_ratio,
        router=router,
        quantize=quantize,
        silence_threshold=silence_threshold,
        mode=mode,
        summarizer=summarizer,
        summarizer_model=summarizer_model,
        job_id=job_id,
        workers=workers,
        min_replicas=low,
        max_replicas=high,
        num_gpus=gpus_per_replica,
    )


def takes_request(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of a summarization job beside its own.

    It is called with a ``SummarizeRequest`` first (its ``address`` unset), then its own options
    by name.
    """
    shared = list(inspect.signature(_request).parameters.values())
    own = list(inspect.signature(command).parameters.values())[1:]
    names = {p.name: p.annotation for p in [*shared, *own]}

    @functools.wraps(command)
    def run(**given: Any) -> None:
        asked = {p.name: given.pop(p.name) for p in shared}
        command(_request(**asked), **given)

    # What typer reads; the request's own type is left out, it is known only when a command runs.
    run.__annotations__ = names
    hints = get_type_hints(run, {**globals(), **command.__globals__}, include_extras=True)
    run.__annotations__ = hints
    parameters = [p.replace(annotation=hints[p.name]) for p in [*shared, *own]]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run
