"""The engine in bulk under a large model, whichever it is: streams whose frames all wait, beside
the plain loop and the tower alone."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bench.harness import ratio
from bench.large_parts import free_what_nobody_holds
from mod.config import RoutedConfig
from mod.cost import kv_bytes, macs
from mod.decoder import RoutedDecoder
from mod.engine.cache import Memory
from mod.engine.engine import Engine
from mod.engine.events import Failed, FrameSeen, TurnEnded
from mod.layout import Layout

#: Tokens of a narration; random weights would never end one.
WORDS = 8
#: Share of frames at which the models speak, and after which they are asked where streams are live.
SPEAKS = 0.03
#: Frames a second of a live stream.
FPS = 2.0
#: Most of a channel (0-255) by which calm pictures differ from what they all show.
_CALM = 8
#: Frames that the tower is timed on at once, and how often.
_BATCH, _BATCHES = 32, 8


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        bulk_runs, bulk_frames: of each way of seeing a stream; ``plain_frames`` of the plain loop.
        live_s: seconds of each count of live streams, after ``warm_s`` that count for nothing:
            what runs for days is warm.
        history: frames that each live stream has seen before.
        cache_bytes: of an engine's pages; None takes a share of what is free on the GPU.
    """

    bulk_runs: int
    bulk_frames: int
    plain_frames: int
    live_s: float
    history: int
    warm_s: float = 5.0
    cache_bytes: int | None = None


def wait_for(device: torch.device) -> None:
    """Wait until a device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def hesitant(model: RoutedDecoder, silence: int) -> None:
    """Set the head where the probability of silence varies with what is seen, and no word's does.

    With a threshold at a quantile of it the model speaks at that share of frames.
    """
    head = model.head
    device = head.weight.device
    generator = torch.Generator(device).manual_seed(2)
    with torch.no_grad():
        head.weight.zero_()
        row = torch.randn(head.weight.shape[1], generator=generator, device=device)
        head.weight[silence] = (row / row.norm()).to(head.weight.dtype)
        bias = torch.zeros(head.weight.shape[0], device=device, dtype=head.weight.dtype)
        # All words together weigh as much as silence does.
        bias[silence] = torch.tensor(float(head.weight.shape[0])).log()
        head.bias = nn.Parameter(bias, requires_grad=False)


def frames_of(side: int, n: int, seed: int = 0, *, calm: bool = False) -> Tensor:
    """Noise (n, side, side, 3).

    Args:
        calm: pictures that hardly differ from each other, as those between cuts.
    """
    generator = torch.Generator().manual_seed(seed)

    def noise(count: int, low: int, high: int) -> Tensor:
        shape = (count, side, side, 3)
        return torch.randint(low, high, shape, dtype=torch.int16, generator=generator)

    if not calm:
        return noise(n, 0, 256).to(torch.uint8)
    return (noise(1, _CALM, 256 - _CALM) + noise(n, -_CALM, _CALM + 1)).to(torch.uint8)


def engine_of(model: RoutedDecoder, layout: Layout, share: float, effort: Effort) -> Engine:
    """An engine whose caches may take ``share`` of what is free, unless ``effort`` says how much.

    Raises:
        ValueError: the model is on no GPU, and ``effort`` does not say.
    """
    free_what_nobody_holds()
    room = effort.cache_bytes
    if room is None:
        if model.device.type != "cuda":
            raise ValueError("without a GPU the bytes of caches must be given")
        room = int(share * torch.cuda.mem_get_info()[0])
    memory = Memory(model.config, room, dtype=model.dtype, device=model.device)
    return Engine(model, layout, memory, step_tokens=4096)


@dataclass
class Told:
    """What an engine told: seconds, silence probabilities, narrations, failures.

    Attributes:
        above_held_bytes: the most memory of the GPU that it took beside what is held anyway.
    """

    seconds: float
    p_silence: list[float]
    spoken: int
    failed: list[str]
    above_held_bytes: int = 0

    def add(self, more: Told) -> None:
        """Another stream was seen after this one."""
        self.seconds += more.seconds
        self.p_silence += more.p_silence
        self.spoken += more.spoken
        self.failed += more.failed
        self.above_held_bytes = max(self.above_held_bytes, more.above_held_bytes)


@dataclass(frozen=True)
class Way:
    """One way of seeing the same frames in bulk.

    Attributes:
        options: with which its engine opens streams, beside those that all share.
    """

    engine: Engine
    options: Mapping[str, Any]


def timed_bulk(engine: Engine, frames: Tensor, options: Mapping[str, Any]) -> Told:
    """One stream whose frames all wait."""
    device = engine.memory.pools[0].keys.device
    on_gpu = device.type == "cuda"
    engine.open("s", max_new_tokens=WORDS, kind="bulk", **options)
    engine.push("s", frames)
    told = Told(0.0, [], 0, [])
    wait_for(device)
    held = torch.cuda.memory_allocated() if on_gpu else 0
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    while engine.busy:
        for event in engine.step():
            if isinstance(event, FrameSeen):
                told.p_silence.append(event.p_silence)
            elif isinstance(event, TurnEnded):
                told.spoken += 1
            elif isinstance(event, Failed):
                told.failed.append(event.error)
    wait_for(device)
    told.seconds = time.perf_counter() - started
    told.above_held_bytes = torch.cuda.max_memory_allocated() - held if on_gpu else 0
    engine.close("s")
    return told


def timed_streams(way: Way, frames: Tensor, length: int) -> Told:
    """Streams of ``length`` frames one after the other, each seen in bulk.

    Raises:
        RuntimeError: a frame could not be seen.
    """
    told = Told(0.0, [], 0, [])
    for part in torch.split(frames, length):
        told.add(timed_bulk(way.engine, part, way.options))
    if told.failed or len(told.p_silence) != len(frames):
        raise RuntimeError(f"{len(told.p_silence)} of {len(frames)} frames, {told.failed[:1]}")
    return told


@dataclass(frozen=True)
class Bulk:
    """What all ways took, in turn.

    Attributes:
        seconds: a frame, of each run.
        spoken: narrations of the last run.
        above_held_bytes: most memory beside what is held anyway, over all runs.
    """

    seconds: dict[str, list[float]]
    spoken: dict[str, int]
    above_held_bytes: dict[str, int]


def in_turn(
    ways: Mapping[str, Way],
    plain: Callable[[Tensor], float],
    frames: Tensor,
    length: int,
    effort: Effort,
) -> Bulk:
    """Every way and the plain loop, one after the other, as often as ``effort`` says.

    Args:
        plain: seconds of the plain loop for some frames.
        length: frames of one stream.

    Raises:
        RuntimeError: a frame could not be seen; names the way.
    """
    found = Bulk({}, {}, {})
    for _ in range(effort.bulk_runs):
        for name, way in ways.items():
            try:
                told = timed_streams(way, frames, length)
            except RuntimeError as failure:
                raise RuntimeError(f"{name}: {failure}") from failure
            found.seconds.setdefault(name, []).append(told.seconds / len(frames))
            found.spoken[name] = told.spoken
            most = max(found.above_held_bytes.get(name, 0), told.above_held_bytes)
            found.above_held_bytes[name] = most
        some = frames[: effort.plain_frames]
        found.seconds.setdefault("plain", []).append(plain(some) / len(some))
    return found


def timed_tower(model: RoutedDecoder, frames: Tensor) -> float:
    """Seconds a frame of the tower alone, in batches that lie where it does."""
    batch = frames[:_BATCH].to(model.device)
    with torch.inference_mode():
        model.encode_frames(batch, batch)
        wait_for(model.device)
        started = time.perf_counter()
        for _ in range(_BATCHES):
            model.encode_frames(batch, batch)
        wait_for(model.device)
    return (time.perf_counter() - started) / (_BATCHES * len(batch))


def compared(
    found: Bulk, over_plain: str, tower: float, mod: RoutedConfig, dense: RoutedConfig, text: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Ratios and figures of streams in bulk.

    Args:
        over_plain: the way that is compared with the plain loop.
        tower: seconds a frame of the tower alone.
        text: tokens of text that follow each frame in a stream in which nothing is said.
    """
    seconds = found.seconds
    cost = macs(mod, 600, 600 * text) / macs(dense, 600, 600 * text)
    decoder = [
        (m - tower) / (d - tower)
        for m, d in zip(seconds["mod_quiet"], seconds["dense_quiet"], strict=True)
    ]
    hour = int(3600 * FPS)
    cached = {
        name: kv_bytes(config, hour, hour * text, 2)
        for name, config in (("mod", mod), ("dense", dense))
    }
    ratios = {
        "bulk_over_plain_loop": ratio(
            [p / m for p, m in zip(seconds["plain"], seconds[over_plain], strict=True)]
        ),
        "mod_time_over_cost_model": ratio([value / cost for value in decoder]),
        "mod_cache_over_dense": ratio([cached["mod"] / cached["dense"]]),
    }
    figures = {
        "frames_per_s": {name: 1.0 / statistics.median(s) for name, s in seconds.items()},
        "tower_frames_per_s": 1.0 / tower,
        "cost_model_ratio": cost,
        "narrations": found.spoken,
        "kv_gib_per_hour": {name: held / 2**30 for name, held in cached.items()},
    }
    return ratios, figures
