"""Names of the work: deterministic ids, so that the same work is the same row wherever it runs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


def _hash(*parts: object) -> str:
    # The separator cannot stand in a number and is escaped nowhere else: "a","bc" != "ab","c".
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()


@dataclass(frozen=True)
class Recipe:
    """What, beside the video, decides a row's content.

    Attributes:
        model, model_revision: the checkpoint.
        prompt_hash: of the instruction that opens each session.
        keep_ratio: share of vision tokens that run in MoD layers.
        fps: samples a second.
        segment_s: wished length of a segment, in seconds.
        silence_threshold: see :meth:`mod.engine.engine.Engine.open`.
        mode: ``segments``, each a short stream of its own, or ``stream``: one through the video.
        router: what takes the place of the checkpoint's own, if anything, as ``mod.choice`` spells
            it.
        quantize: what the decoder's weights are turned into, if anything.
        summarizer: of video summaries: address of an endpoint, and its model if one is named;
            None for the model itself.
    """

    model: str
    model_revision: str
    prompt_hash: str
    keep_ratio: float
    fps: float
    segment_s: float
    silence_threshold: float
    mode: str = "segments"
    summarizer: str | None = None
    router: str | None = None
    quantize: str | None = None


def prompt_hash(prompt: str) -> str:
    """Twelve hex digits that stand for a prompt."""
    return _hash(prompt)[:12]


def video_id(uri: str, etag: str | None) -> str:
    """Sixteen hex digits for one version of one object."""
    return _hash(uri, etag or "")[:16]


def segment_id(uri: str, etag: str | None, start_s: float, end_s: float, recipe: Recipe) -> str:
    """Twenty hex digits for one segment worked on by one recipe."""
    return _hash(
        uri,
        etag or "",
        f"{start_s:.6f}",
        f"{end_s:.6f}",
        recipe.fps,
        recipe.model_revision,
        recipe.prompt_hash,
        recipe.keep_ratio,
        recipe.silence_threshold,
        *([recipe.mode] if recipe.mode != "segments" else []),
        # Only where it is given: ids made before there was a choice stay as they are.
        *([f"router {recipe.router}"] if recipe.router else []),
        *([f"quantize {recipe.quantize}"] if recipe.quantize else []),
    )[:20]
