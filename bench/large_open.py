"""Open models at their published sizes on a GPU: ``python -m bench.large --model MODEL --json``.

Random bfloat16 weights under the real classes, configs and layouts, read as those of a checkpoint
are. Streams in bulk and live, with the ``redundancy`` router, which needs no training, beside the
dense model of the same weights. Needs torch and transformers only.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bench import weightless
from bench.large_engine import (
    FPS,
    SPEAKS,
    WORDS,
    Effort,
    Way,
    compared,
    engine_of,
    frames_of,
    in_turn,
    timed_bulk,
    timed_tower,
    wait_for,
)
from bench.large_live import Tried, most_live
from bench.large_parts import Parts
from bench.plain_open import PlainChat, own_attention
from infra.openmodels.published import Published
from mod.adopted import AdoptedModel
from mod.config import AdoptedConfig
from mod.engine.policy import Window, fitted, in_steps
from mod.families.chat import ChatLayout
from mod.routers import Router

ROUTER: Router = "redundancy"
KEEP = 0.2
QUICK = Effort(bulk_runs=2, bulk_frames=160, plain_frames=20, live_s=5.0, history=300)
FULL = Effort(bulk_runs=3, bulk_frames=640, plain_frames=40, live_s=12.0, history=300)
#: What a live session remembers unless it is told otherwise.
_WINDOW = Window(frames=256)
_COUNTS = (8, 16, 32, 48, 64, 96)
LIVE = {name: Tried(name, _COUNTS, _WINDOW) for name in ("mod", "dense")}
#: Frames that come again and again in live streams.
_POOL = 64
#: Tokens of a context that are left for text beside frames.
_TEXT = 512
PARTS = ("model", "bulk", "live")


def stream_length(config: AdoptedConfig, layout: ChatLayout, most: int) -> int:
    """Frames of one stream that remembers everything: as many as the context holds, at most
    ``most``, and whole steps."""
    per_step = config.frames_per_step
    steps = -(-most // per_step)
    if config.context is not None:
        beside = config.tokens_per_frame + layout.beside_tokens
        steps = min(steps, max(1, (config.context - _TEXT) // beside))
    return steps * per_step


def timed_plain(model: AdoptedModel, layout: ChatLayout, frames: Tensor) -> float:
    """Seconds of the plain loop on the same weights; nothing is said."""
    with own_attention(model):
        loop = PlainChat(model, layout, FPS)
        loop.watch(frames[: 2 * model.config.frames_per_step])
        wait_for(model.device)
        started = time.perf_counter()
        loop.watch(frames)
        wait_for(model.device)
        return time.perf_counter() - started


def bulk(
    mod: AdoptedModel, dense: AdoptedModel, layout: ChatLayout, effort: Effort
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Streams whose frames all wait: not asked, and asked what happens as in a job."""
    frames = frames_of(mod.config.image_size, effort.bulk_frames, calm=True)
    length = stream_length(mod.config, layout, len(frames))
    engines = {n: engine_of(m, layout, 0.3, effort) for n, m in (("mod", mod), ("dense", dense))}
    ways = {
        f"{name}{'' if asked else '_quiet'}": Way(engine, {"fps": FPS, "asked": asked})
        for asked in (False, True)
        for name, engine in engines.items()
    }
    for way in ways.values():
        timed_bulk(way.engine, frames[:length], way.options)
    found = in_turn(ways, lambda some: timed_plain(dense, layout, some), frames, length, effort)
    tower = timed_tower(mod, frames)
    ratios, figures = compared(found, "mod_quiet", tower, mod.config, dense.config, text=0)
    figures["stream_frames"] = length
    if mod.device.type == "cuda":
        most = found.above_held_bytes
        figures["above_held_gib"] = {name: value / 2**30 for name, value in most.items()}
    return ratios, figures


def engine_parts(
    parts: Parts,
    config: AdoptedConfig,
    layout: ChatLayout,
    effort: Effort,
    tried: Mapping[str, Tried],
    device: torch.device,
    dtype: torch.dtype,
) -> None:
    """The model, streams in bulk, and live ones as ``tried`` says."""
    models: dict[str, AdoptedModel] = {}

    def built() -> tuple[dict[str, Any], dict[str, Any]]:
        mod = weightless.open_model(config, device, dtype)
        models.update(mod=mod, dense=weightless.dense_twin(mod))
        weights = list(mod.parameters())
        held = sum(weight.numel() * weight.element_size() for weight in weights)
        return {}, {"parameters": sum(w.numel() for w in weights), "weights_gib": held / 2**30}

    parts.run("model", built)
    if not models:
        for name in PARTS[1:]:
            parts.skip(name, "there is no model")
        return
    parts.run("bulk", lambda: bulk(models["mod"], models["dense"], layout, effort))
    parts.figures["live"] = {}
    pool = frames_of(config.image_size, _POOL, calm=True)
    for name, each in tried.items():
        options = {"policy": each.policy, "fps": FPS}
        found = most_live(models[each.model], layout, each.counts, effort, pool, options)
        parts.figures["live"][name] = found
        if error := first_error(found):
            parts.skip(f"live, {name}", error)


def first_error(tried: Sequence[Mapping[str, Any]]) -> str:
    """Why not even the least number of live streams ran; empty where it did."""
    return str(tried[0].get("error", "")) if tried else ""


def window_frames(config: AdoptedConfig, layout: ChatLayout) -> int:
    """Frames that a live session remembers at least: what the context holds of its window."""
    per_step = config.frames_per_step
    beside = config.tokens_per_frame + layout.beside_tokens
    window = fitted(in_steps(_WINDOW, per_step), config.context, beside)
    assert isinstance(window, Window)
    return window.frames * per_step


def settings_of(
    published: Published, config: AdoptedConfig, layout: ChatLayout, effort: Effort
) -> dict[str, Any]:
    """What a result says of how it came about."""
    return {
        "geometry": f"{published.title} ({published.name}), bfloat16, random weights",
        "router": config.router,
        "keep_ratio": config.keep_ratio,
        "picture_size": config.image_size,
        "frames_per_step": config.frames_per_step,
        "tokens_per_step": config.tokens_per_frame,
        "words": WORDS,
        "bulk_frames": effort.bulk_frames,
        "asked_every_s": config.ask_every_s,
        "live": {
            "fps": FPS,
            "history_frames": effort.history,
            "seconds": effort.live_s,
            "asked_after": SPEAKS,
            "window_frames": window_frames(config, layout),
        },
    }


def measure(
    published: Published, quick: bool
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """All parts; one that cannot run here is named under ``skipped`` with the reason."""
    if not torch.cuda.is_available():
        return {}, {}, {"skipped": dict.fromkeys(PARTS, "no CUDA device")}
    effort = QUICK if quick else FULL
    config, layout = weightless.served(published, published.config(), ROUTER, KEEP)
    parts = Parts()
    engine_parts(parts, config, layout, effort, LIVE, torch.device("cuda"), torch.bfloat16)
    settings = settings_of(published, config, layout, effort)
    return settings, parts.ratios, parts.figures
