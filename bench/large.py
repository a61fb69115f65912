"""The paper's geometry on a GPU: ``python -m bench.large --json``.

Llama-3-8B behind SigLIP-L/16 at 384 pixels in bfloat16, with random weights: arithmetic does not
depend on their values. A training step with LoRA, the engine on one stream, and how many live
streams it keeps up with; each beside the dense model of the same weights. Needs torch,
transformers and peft only.
"""

from __future__ import annotations

import gc
import random
import statistics
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bench import limits
from bench.flops import FRAMES, RANK, llama3_8b
from bench.harness import ratio, run
from bench.plain import PlainLoop
from mod.config import VideoLLMMoDConfig
from mod.cost import activation_bytes, kv_bytes, macs
from mod.decoder import Stream
from mod.engine.cache import Memory
from mod.engine.engine import Engine
from mod.engine.events import Failed, FrameSeen, TurnEnded
from mod.engine.policy import Policy, Window
from mod.layout import StreamLayout, train_tokenizer
from mod.lora import add_lora
from mod.modeling import VideoLLMMoD
from mod.objective import live_loss
from mod.world.dialogues import corpus

CUDA = torch.device("cuda")
#: Tokens of a narration; random weights would never end one.
WORDS = 8
#: Share of frames at which the models speak, and after which they are asked where streams are live.
SPEAKS = 0.03
#: Seconds at the start of a live run that count for nothing: what runs for days is warm.
WARM_S = 5.0
#: Frames a second of a live stream, and the lag that is too much.
FPS, LIMIT_S = 2.0, 1.0


@dataclass(frozen=True)
class Effort:
    """How much is measured."""

    step_runs: int
    bulk_runs: int
    bulk_frames: int
    plain_frames: int
    live_s: float
    history: int


QUICK = Effort(3, 2, 640, 40, 5.0, 300)
FULL = Effort(5, 3, 1280, 60, 20.0, 1200)


def random_model(config: VideoLLMMoDConfig) -> VideoLLMMoD:
    """Random bfloat16 weights on the GPU."""
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with CUDA:
            return VideoLLMMoD(config)
    finally:
        torch.set_default_dtype(before)


def dense_twin(model: VideoLLMMoD) -> VideoLLMMoD:
    """The same weights in the same memory, routing nothing."""
    config = llama3_8b()
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


def training(effort: Effort) -> tuple[dict[str, Any], dict[str, Any]]:
    """Ratios and figures of the training step with LoRA, full and routed in turn."""
    model = random_model(llama3_8b()).train()
    add_lora(model, RANK, 2 * RANK)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-5, fused=True)
    full, routed = [], []
    for _ in range(effort.step_runs + 1):
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


def hesitant(model: VideoLLMMoD, layout: StreamLayout) -> None:
    """Set the head where the probability of silence varies with what is seen, and no word's does.

    With a threshold at a quantile of it the model speaks at that share of frames.
    """
    head = model.language_model.lm_head
    generator = torch.Generator(CUDA).manual_seed(2)
    with torch.no_grad():
        head.weight.zero_()
        row = torch.randn(head.weight.shape[1], generator=generator, device=CUDA)
        head.weight[layout.silence] = (row / row.norm()).to(head.weight.dtype)
        bias = torch.zeros(head.weight.shape[0], device=CUDA, dtype=head.weight.dtype)
        # All words together weigh as much as silence does.
        bias[layout.silence] = torch.tensor(float(head.weight.shape[0])).log()
        head.bias = nn.Parameter(bias, requires_grad=False)


def frames_of(model: VideoLLMMoD, n: int, seed: int = 0) -> Tensor:
    """Noise (n, side, side, 3)."""
    side = model.config.vision_config.image_size
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, side, side, 3), dtype=torch.uint8, generator=generator)


def engine_of(model: VideoLLMMoD, layout: StreamLayout, share: float) -> Engine:
    """An engine whose caches may take ``share`` of what is free."""
    gc.collect()
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    memory = Memory(model.config, int(share * free), dtype=torch.bfloat16, device=CUDA)
    return Engine(model, layout, memory, step_tokens=4096)


@dataclass
class Told:
    """What an engine told: seconds, silence probabilities, narrations, failures."""

    seconds: float
    p_silence: list[float]
    spoken: int
    failed: list[str]


def timed_bulk(engine: Engine, frames: Tensor, threshold: float) -> Told:
    """One stream whose frames all wait."""
    engine.open("s", max_new_tokens=WORDS, kind="bulk", threshold=threshold)
    engine.push("s", frames)
    told = Told(0.0, [], 0, [])
    torch.cuda.synchronize()
    started = time.perf_counter()
    while engine.busy:
        for event in engine.step():
            if isinstance(event, FrameSeen):
                told.p_silence.append(event.p_silence)
            elif isinstance(event, TurnEnded):
                told.spoken += 1
            elif isinstance(event, Failed):
                told.failed.append(event.error)
    torch.cuda.synchronize()
    told.seconds = time.perf_counter() - started
    engine.close("s")
    return told


def timed_plain(model: VideoLLMMoD, layout: StreamLayout, frames: Tensor) -> float:
    """Seconds of the plain loop on the same weights."""
    model.language_model.set_attn_implementation("sdpa")
    try:
        loop = PlainLoop(model, layout, max_new_tokens=WORDS)
        loop.watch(frames[:4])
        torch.cuda.synchronize()
        started = time.perf_counter()
        loop.watch(frames)
        torch.cuda.synchronize()
        return time.perf_counter() - started
    finally:
        from mod.attention import NAME

        model.language_model.set_attn_implementation(NAME)


def timed_tower(model: VideoLLMMoD, frames: Tensor) -> float:
    """Seconds a frame of the tower alone, in batches of 32 that lie on the GPU."""
    batch = frames[:32].to(CUDA)
    with torch.inference_mode():
        model.encode_frames(batch, batch)
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(8):
            model.encode_frames(batch, batch)
        torch.cuda.synchronize()
    return (time.perf_counter() - started) / (8 * len(batch))


def _drain(engine: Engine) -> None:
    while engine.busy:
        engine.step()


def quantile(values: list[float], q: float) -> float:
    """The ``q``-quantile (0-1), NaN of nothing."""
    if not values:
        return float("nan")
    return sorted(values)[min(len(values) - 1, int(q * len(values)))]


def bulk(
    mod: VideoLLMMoD, dense: VideoLLMMoD, layout: StreamLayout, effort: Effort
) -> tuple[dict[str, Any], dict[str, Any], dict[str, float]]:
    """Ratios, figures, and the thresholds at which the models speak as often as wanted."""
    frames = frames_of(mod, effort.bulk_frames)
    engines = {name: engine_of(m, layout, 0.3) for name, m in (("mod", mod), ("dense", dense))}
    # Words that were said change what is seen after them: the share is near, and is reported.
    speaking = {
        name: quantile(timed_bulk(engine, frames, 0.0).p_silence, SPEAKS)
        for name, engine in engines.items()
    }
    for name, engine in engines.items():
        timed_bulk(engine, frames, speaking[name])
    found: dict[str, list[float]] = {}
    spoken: dict[str, int] = {}
    for _ in range(effort.bulk_runs):
        for name, engine, threshold in (
            ("mod_quiet", engines["mod"], 0.0),
            ("dense_quiet", engines["dense"], 0.0),
            ("mod", engines["mod"], speaking["mod"]),
            ("dense", engines["dense"], speaking["dense"]),
        ):
            told = timed_bulk(engine, frames, threshold)
            if told.failed or len(told.p_silence) != len(frames):
                raise RuntimeError(f"{name}: {len(told.p_silence)} frames, {told.failed[:1]}")
            found.setdefault(name, []).append(told.seconds / len(frames))
            spoken[name] = told.spoken
        some = frames[: effort.plain_frames]
        found.setdefault("plain", []).append(timed_plain(dense, layout, some) / len(some))
    tower = timed_tower(mod, frames)
    cost = macs(mod.config, 600, 600) / macs(dense.config, 600, 600)
    decoder = [
        (m - tower) / (d - tower)
        for m, d in zip(found["mod_quiet"], found["dense_quiet"], strict=True)
    ]
    ratios = {
        "bulk_over_plain_loop": ratio(
            [p / m for p, m in zip(found["plain"], found["mod"], strict=True)]
        ),
        "mod_time_over_cost_model": ratio([value / cost for value in decoder]),
        "mod_cache_over_dense": ratio(
            [kv_bytes(mod.config, 7200, 7200, 2) / kv_bytes(dense.config, 7200, 7200, 2)]
        ),
    }
    figures = {
        "frames_per_s": {name: 1.0 / statistics.median(s) for name, s in found.items()},
        "tower_frames_per_s": 1.0 / tower,
        "cost_model_ratio": cost,
        "narrations": spoken,
        "kv_gib_per_hour": {
            "mod": kv_bytes(mod.config, 7200, 7200, 2) / 2**30,
            "dense": kv_bytes(dense.config, 7200, 7200, 2) / 2**30,
        },
    }
    return ratios, figures, speaking


def live(
    model: VideoLLMMoD,
    layout: StreamLayout,
    sessions: int,
    effort: Effort,
    threshold: float,
    policy: Policy | None = None,
) -> dict[str, Any]:
    """Lag of streams at 2 fps that each remember ``effort.history`` frames, in pages of their own.

    Returns:
        Quantiles of the seconds from a frame's arrival to its decision; a frame that has none at
        the end counts with its age.
    """
    engine = engine_of(model, layout, 0.9)
    options: dict[str, Any] = {"max_new_tokens": WORDS, "threshold": threshold, "policy": policy}
    engine.open("s0", **options)
    pool = frames_of(model, 64)
    engine.push("s0", pool.repeat(-(-effort.history // 64), 1, 1, 1)[: effort.history])
    _drain(engine)
    # What was evicted comes back into pages that nobody shares.
    engine.evict("s0")
    names = [f"s{i}" for i in range(sessions)]
    for name in names[1:]:
        engine.fork("s0", name)
    for name in names:
        engine.bring_in(name)
    torch.cuda.synchronize()
    waiting: dict[str, deque[float]] = {name: deque() for name in names}
    chance = random.Random(0)
    started = time.perf_counter()
    due = [started + i / sessions / FPS for i in range(sessions)]
    seen: list[tuple[float, float]] = []
    failed: list[str] = []
    spoken = steps = pushed = 0
    while (now := time.perf_counter()) < started + WARM_S + effort.live_s:
        for i, name in enumerate(names):
            if due[i] <= now:
                engine.push(name, pool[steps % 64][None])
                waiting[name].append(due[i])
                due[i] += 1.0 / FPS
                pushed += 1
                if chance.random() < SPEAKS:
                    engine.ask(name, f"q{pushed}", "What is happening now?")
        if not engine.busy:
            time.sleep(max(0.0, min(due) - time.perf_counter()))
            continue
        steps += 1
        for event in engine.step():
            if isinstance(event, FrameSeen):
                at = waiting[event.session].popleft()
                seen.append((at, time.perf_counter() - at))
            elif isinstance(event, TurnEnded):
                spoken += 1
            elif isinstance(event, Failed):
                failed.append(event.error)
    ended = time.perf_counter()
    seen += [(at, ended - at) for times in waiting.values() for at in times]
    lags = [lag for at, lag in seen if at >= started + WARM_S]
    used = engine.memory.used_bytes
    return {
        "sessions": sessions,
        "p50_s": quantile(lags, 0.5),
        "p99_s": quantile(lags, 0.99),
        "frames": len(lags),
        "narrations_and_answers": spoken,
        "steps": steps,
        "cache_gib": used / 2**30,
        "failed": failed[:3],
    }


def most_live(
    model: VideoLLMMoD,
    layout: StreamLayout,
    counts: list[int],
    effort: Effort,
    threshold: float,
    policy: Policy | None = None,
) -> list[dict[str, Any]]:
    """``live`` for ever more sessions, until the lag's p99 passes the limit or memory ends."""
    found: list[dict[str, Any]] = []
    for count in counts:
        try:
            found.append(live(model, layout, count, effort, threshold, policy))
        except Exception as failure:
            found.append({"sessions": count, "error": f"{type(failure).__name__}: {failure}"})
            break
        print(found[-1], flush=True)
        if found[-1]["p99_s"] > LIMIT_S:
            break
    return found


def measure(quick: bool) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """All parts; one that cannot run here is named under ``skipped`` with the reason."""
    if not torch.cuda.is_available():
        reason = "no CUDA device"
        return {}, {}, {"skipped": dict.fromkeys(("training", "bulk", "live"), reason)}
    effort = QUICK if quick else FULL
    ratios: dict[str, Any] = {}
    figures: dict[str, Any] = {"skipped": {}}

    def part(name: str, what: Callable[[], tuple[dict[str, Any], dict[str, Any]]]) -> None:
        started = time.perf_counter()
        try:
            more, seen = what()
            ratios.update(more)
            figures[name] = seen
        except Exception as failure:
            traceback.print_exc()
            figures["skipped"][name] = f"{type(failure).__name__}: {failure}".splitlines()[0]
        gc.collect()
        torch.cuda.empty_cache()
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)

    part("training", lambda: training(effort))
    mod = random_model(llama3_8b_bounded()).eval()
    dense = dense_twin(mod)
    layout = StreamLayout.of(train_tokenizer(corpus(), mod.config, 512), mod.config)
    hesitant(mod, layout)
    speaking = {"mod": 0.0, "dense": 0.0}

    def bulk_part() -> tuple[dict[str, Any], dict[str, Any]]:
        more, seen, found = bulk(mod, dense, layout, effort)
        speaking.update(found)
        return more, seen

    part("bulk", bulk_part)
    figures["live"] = {}
    for name, kind, counts, policy in (
        ("mod", "mod", [64, 100, 128], None),
        ("mod, window of 256 frames", "mod", [200, 300, 400], Window(frames=256)),
        ("dense", "dense", [48, 72, 100], None),
    ):
        model = mod if kind == "mod" else dense
        found = most_live(model, layout, counts, effort, speaking[kind], policy)
        figures["live"][name] = found
    settings = {
        "geometry": "Llama-3-8B, SigLIP-L/16 at 384 pixels, bfloat16, random weights",
        "keep_ratio": mod.config.keep_ratio,
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
    return settings, ratios, figures


def llama3_8b_bounded() -> VideoLLMMoDConfig:
    """The geometry with the router that starts as the dense model."""
    config = llama3_8b()
    config.router = "bounded"
    return config


if __name__ == "__main__":
    run("large", measure)
