"""What a submitted job runs on the cluster: its command line, and the code that goes with it."""

from __future__ import annotations

import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import longreel
from actors.keepout import KEEP_OUT
from actors.objects import located
from longreel.errors import UsageError
from mod.checkpoint import located_model
from pipelines.job import SummarizeRequest

#: The option of ``longreel summarize`` for each field of a request that is one value.
OPTIONS = {
    "model": "--model",
    "fps": "--fps",
    "segment_s": "--segment-seconds",
    "prompt": "--prompt",
    "keep_ratio": "--keep-ratio",
    "router": "--router",
    "quantize": "--quantize",
    "silence_threshold": "--silence-threshold",
    "mode": "--mode",
    "summarizer": "--summarizer",
    "summarizer_model": "--summarizer-model",
    "workers": "--workers",
    "num_gpus": "--gpus-per-replica",
}
#: Top-level packages that a job imports.
PACKAGES = ("actors", "longreel", "mod", "pipelines", "serve")
#: Seconds between asking a driver to stop and killing it. Ray's own 3 are too few to write out
#: rows over a slow network.
STOP_WAIT_S = 120
#: Linux takes 128 KiB in one argument, and the shell gets the whole line as one.
_MAX_LINE_BYTES = 120_000


def placed(request: SummarizeRequest) -> SummarizeRequest:
    """The request with every local path absolute, as it must read on the cluster.

    Raises:
        StorageError: a source or the output is no path and no ``s3://`` address.
    """
    return replace(
        request,
        sources=tuple(map(located, request.sources)),
        output=located(request.output),
        model=located_model(request.model),
    )


def entrypoint(request: SummarizeRequest, job_id: str) -> str:
    """The shell line that runs a placed request on the cluster as the job ``job_id``.

    Every option is spelt out: a later version may have other defaults.

    Raises:
        UsageError: it is longer than a command line may be.
    """
    words = ["python", "-m", "longreel.cli", "summarize"]
    for field, option in OPTIONS.items():
        value = getattr(request, field)
        if value is not None:
            words.append(f"{option}={value}")
    words += [
        f"--replicas={request.min_replicas}:{request.max_replicas}",
        f"--output={request.output}",
        f"--job-id={job_id}",
        "--address=auto",
        "--",
        *request.sources,
    ]
    # exec: a signal meant for the job then reaches the driver itself, not a shell around it.
    line = f"exec {shlex.join(words)}"
    if len(line.encode()) > _MAX_LINE_BYTES:
        raise UsageError(
            f"{len(request.sources)} sources are too many to submit one by one; name them in a "
            "manifest (Parquet, CSV or JSONL with a 'uri' column)"
        )
    return line


def checkout(package: Path | None = None) -> Path | None:
    """The checkout that ``package`` (longreel's folder) is part of, None where it is installed."""
    root = (package or Path(longreel.__file__).parent).resolve().parent
    if {"site-packages", "dist-packages"} & set(root.parts):
        return None
    return root if (root / "pyproject.toml").is_file() else None


def runtime_env(code: Path | None) -> dict[str, Any]:
    """Ray's description of a job's surroundings: what this process is kept out of, the job is too.

    Args:
        code: a checkout to send, its packages and nothing else; None runs what the image has.
    """
    found: dict[str, Any] = {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)}}
    if place := os.environ.get(KEEP_OUT):
        found["env_vars"][KEEP_OUT] = place
    if code is not None:
        kept = [pattern for name in PACKAGES for pattern in (f"!/{name}", f"!/{name}/**")]
        found["working_dir"] = str(code)
        # Not "/*": Ray's matcher takes that for the folder itself as well.
        found["excludes"] = ["/[!.]*", "/.?*", *kept, "__pycache__"]
    return found
