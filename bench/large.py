"""The paper's geometry on a GPU: ``python -m bench.large --json``.

Llama-3-8B behind SigLIP-L/16 at 384 pixels in bfloat16, with random weights: arithmetic does not
depend on their values. A training step with LoRA, the engine on one stream, and how many live
streams it keeps up with; each beside the dense model of the same weights. ``--model`` measures
the engine under an open model instead (:mod:`bench.large_open`). Needs torch, transformers and
peft only.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bench import large_open, limits
from bench.flops import FRAMES, RANK, llama3_8b
from bench.harness import Measure, ratio, run
from bench.large_engine import (
    FPS,
    SPEAKS,
    WORDS,
    Effort,
    Way,
    compared,
    engine_of,
    frames_of,
    hesitant,
    in_turn,
    timed_bulk,
    timed_tower,
    wait_for,
)
from bench.large_live import Tried, most_live, quantile
from bench.large_parts import Parts
from bench.plain import PlainLoop
from bench.weightless import on_device
from infra.openmodels.published import PUBLISHED
from mod.attention import NAME
from mod.config import VideoLLMMoDConfig
from mod.cost import activation_bytes, macs
from mod.decoder import Stream
from mod.engine.policy import Window
from mod.layout import StreamLayout, train_tokenizer
from mod.lora import add_lora
from mod.modeling import VideoLLMMoD
from mod.objective import live_loss
from mod.world.dialogues import corpus

CUDA = torch.device("cuda")
#: Runs of the training step.
STEP_RUNS, STEP_RUNS_QUICK = 5, 3
QUICK = Effort(bulk_runs=2, bulk_frames=640, plain_frames=40, live_s=5.0, history=300)
FULL = Effort(bulk_runs=3, bulk_frames=1280, plain_frames=60, live_s=20.0, history=1200)
LIVE = {
    "mod": Tried("mod", (64, 100, 128)),
    "mod, window of 256 frames": Tried("mod", (200, 300, 400), Window(frames=256)),
    "dense": Tried("dense", (48, 72, 100)),
}


def random_model(config: VideoLLMMoDConfig) -> VideoLLMMoD:
    """Random bfloat16 weights on the GPU."""
    return on_device(lambda: VideoLLMMoD(config), CUDA, torch.bfloat16)


def dense_twin(model: VideoLLMMoD) -> VideoLLMMoD:
    """The same weights in the same memory, routing nothing."""
    config = deepcopy(model.config)
    config.router = "none"
    with torch.device("meta"):
        twin = VideoLLMMoD(config)
    twin.vision_tower, twin.connector = model.vision_tower, model.connector
    twin.language_model = model.language_model
    return twin.eval()


@contextmanager
def unrouted(model: VideoLLMMoD) -> Iterator[None]:
    """The dense model of the same weights: no layer has a router."""
    routers = model.routers
    model.routers = nn.ModuleDict()
    try:
        yield
    finally:
        model.routers = routers


# Training


def train_step(model: VideoLLMMoD, optimizer: torch.optim.Optimizer) -> None:
    """Forward, backward and update over one stream of ``FRAMES`` frames with silence tokens."""
    n = model.config.tokens_per_frame
    generator = torch.Generator(CUDA).manual_seed(1)
    width = model.config.vision_config.hidden_size
    features = torch.randn(FRAMES, n, width, generator=generator, device=CUDA, dtype=torch.bfloat16)
    starts = torch.arange(FRAMES, device=CUDA) * (n + 1)
    places = (starts[:, None] + torch.arange(n, device=CUDA)).flatten()
    length = FRAMES * (n + 1)
    words = model.embed_text(torch.zeros(length, dtype=torch.long, device=CUDA))
    embeddings = words.index_copy(0, places, model.connector(features).flatten(0, 1))
    positions = torch.arange(length, device=CUDA)
    hidden = model(Stream(embeddings, positions, starts, [length], frames=[FRAMES]))
    labels = torch.randint(0, 1024, (FRAMES,), generator=generator, device=CUDA)
    torch.autograd.backward(live_loss(model.logits(hidden[starts + n - 1]), labels, 0))
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


@dataclass(frozen=True)
class Step:
    """Seconds of a step, and the most memory it took: in all, and beside what is held anyway."""

    seconds: float
    peak_bytes: int
    above_held_bytes: int


def timed_step(model: VideoLLMMoD, optimizer: torch.optim.Optimizer) -> Step:
    """One step by the clock."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    started = time.perf_counter()
    train_step(model, optimizer)
    torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    peak = torch.cuda.max_memory_allocated()
    return Step(seconds, peak, peak - held)


def training(runs: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Ratios and figures of the training step with LoRA, full and routed in turn."""
    model = random_model(llama3_8b()).train()
    add_lora(model, RANK, 2 * RANK)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-5, fused=True)
    full, routed = [], []
    for _ in range(runs + 1):
        with unrouted(model):
            full.append(timed_step(model, optimizer))
        routed.append(timed_step(model, optimizer))
    # The first of each warms up and makes the optimizer's state.
    full, routed = full[1:], routed[1:]

    def over(value: Callable[[Step], float]) -> dict[str, float]:
        return ratio([value(m) / value(f) for m, f in zip(routed, full, strict=True)])

    dense = llama3_8b()
    dense.router = "none"
    seconds = statistics.median(s.seconds for s in full)
    # Frozen weights get no gradient: one product forward, one backward, and LoRA's own third.
    done = 4.0 * macs(dense, FRAMES, FRAMES, lora_rank=RANK)
    ratios = {
        "train_time_mod_over_full": over(lambda s: s.seconds),
        "train_memory_mod_over_full": over(lambda s: s.above_held_bytes),
        "train_total_memory_mod_over_full": over(lambda s: s.peak_bytes),
    }
    figures = {
        "step_seconds": {
            "full": statistics.median(s.seconds for s in full),
            "mod": statistics.median(s.seconds for s in routed),
        },
        "step_peak_gib": {
            "full": max(s.peak_bytes for s in full) / 2**30,
            "mod": max(s.peak_bytes for s in routed) / 2**30,
        },
        "held_gib": (full[0].peak_bytes - full[0].above_held_bytes) / 2**30,
        "full_step_tflops": done / seconds / 1e12,
        "limits": limits.beside(
            limits.measured(device="cuda", dtype=torch.bfloat16), {"full_step": done / seconds}
        ),
        "activation_model_mod_over_full": activation_bytes(llama3_8b(), FRAMES, FRAMES, 2)
        / activation_bytes(dense, FRAMES, FRAMES, 2),
    }
    return ratios, figures


# The engine


def timed_plain(model: VideoLLMMoD, layout: StreamLayout, frames: Tensor) -> float:
    """Seconds of the plain loop on the same weights."""
    model.language_model.set_attn_implementation("sdpa")
    try:
        loop = PlainLoop(model, layout, max_new_tokens=WORDS)
        loop.watch(frames[:4])
        wait_for(model.device)
        started = time.perf_counter()
        loop.watch(frames)
        wait_for(model.device)
        return time.perf_counter() - started
    finally:
        model.language_model.set_attn_implementation(NAME)


def bulk(
    mod: VideoLLMMoD, dense: VideoLLMMoD, layout: StreamLayout, effort: Effort
) -> tuple[dict[str, Any], dict[str, Any], dict[str, float]]:
    """Ratios, figures, and the thresholds at which the models speak as often as wanted."""
    frames = frames_of(mod.config.image_size, effort.bulk_frames)
    engines = {n: engine_of(m, layout, 0.3, effort) for n, m in (("mod", mod), ("dense", dense))}
    # Words that were said change what is seen after them: the share is near, and is reported.
    speaking = {
        name: quantile(timed_bulk(engine, frames, {"threshold": 0.0}).p_silence, SPEAKS)
        for name, engine in engines.items()
    }
    talking = {name: Way(engine, {"threshold": speaking[name]}) for name, engine in engines.items()}
    for way in talking.values():
        timed_bulk(way.engine, frames, way.options)
    timed_plain(dense, layout, frames)  # as often as the others have seen it
    quiet = {f"{name}_quiet": Way(e, {"threshold": 0.0}) for name, e in engines.items()}
    found = in_turn(
        {**quiet, **talking},
        lambda some: timed_plain(dense, layout, some),
        frames,
        len(frames),
        effort,
    )
    tower = timed_tower(mod, frames)
    # Silence is a token.
    ratios, figures = compared(found, "mod", tower, mod.config, dense.config, text=1)
    return ratios, figures, speaking


def engine_parts(
    parts: Parts, mod: VideoLLMMoD, effort: Effort, tried: Mapping[str, Tried]
) -> None:
    """Streams in bulk, and live ones as ``tried`` says."""
    dense = dense_twin(mod)
    layout = StreamLayout.of(train_tokenizer(corpus(), mod.config, 512), mod.config)
    hesitant(mod, layout.silence)
    speaking = {"mod": 0.0, "dense": 0.0}

    def bulk_part() -> tuple[dict[str, Any], dict[str, Any]]:
        ratios, figures, found = bulk(mod, dense, layout, effort)
        speaking.update(found)
        return ratios, figures

    parts.run("bulk", bulk_part)
    pool = frames_of(mod.config.image_size, 64)
    parts.figures["live"] = {}
    for name, each in tried.items():
        model = mod if each.model == "mod" else dense
        options = {"threshold": speaking[each.model], "policy": each.policy}
        found = most_live(model, layout, each.counts, effort, pool, options)
        parts.figures["live"][name] = found


def measure(quick: bool) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """All parts; one that cannot run here is named under ``skipped`` with the reason."""
    if not torch.cuda.is_available():
        reason = "no CUDA device"
        return {}, {}, {"skipped": dict.fromkeys(("training", "bulk", "live"), reason)}
    effort = QUICK if quick else FULL
    parts = Parts()
    parts.run("training", lambda: training(STEP_RUNS_QUICK if quick else STEP_RUNS))
    config = llama3_8b_bounded()
    engine_parts(parts, random_model(config).eval(), effort, LIVE)
    settings = {
        "geometry": "Llama-3-8B, SigLIP-L/16 at 384 pixels, bfloat16, random weights",
        "keep_ratio": config.keep_ratio,
        "training": {"frames": FRAMES, "tokens": 11 * FRAMES, "lora_rank": RANK},
        "bulk_frames": effort.bulk_frames,
        "live": {
            "fps": FPS,
            "history_frames": effort.history,
            "seconds": effort.live_s,
            "asked_after": SPEAKS,
        },
        "speaks": SPEAKS,
    }
    return settings, parts.ratios, parts.figures


def llama3_8b_bounded() -> VideoLLMMoDConfig:
    """The geometry with the router that starts as the dense model."""
    config = llama3_8b()
    config.router = "bounded"
    return config


#: What ``--model`` measures, the paper's geometry unless another is asked for.
MODELS: dict[str, Measure] = {
    "llama3-8b": measure,
    **{model: partial(large_open.measure, published) for model, published in PUBLISHED.items()},
}

if __name__ == "__main__":
    run("large", MODELS)
