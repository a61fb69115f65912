"""The session engine beside the plain loop and beside its own dense form.

``python -m bench.engine --json``; every side runs the same weights on the same frames, in turn.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bench import limits
from bench.harness import ratio, run
from bench.models import LAYERS, WIDTH, wide_config
from bench.plain import PlainLoop, Said
from mod.config import VideoLLMMoDConfig
from mod.cost import macs
from mod.engine.cache import Memory
from mod.engine.engine import Engine
from mod.engine.events import TurnEnded, Word
from mod.layout import StreamLayout, train_tokenizer
from mod.modeling import VideoLLMMoD
from mod.world.dialogues import corpus

LIVE_SESSIONS = 16
#: Share of frames at which the models speak.
SPEAKS = 0.03
#: Streams, and frames of each, that set when they speak.
TAUGHT, TAUGHT_FRAMES = 8, 40


def build(router: str, keep_ratio: float = 0.2) -> tuple[VideoLLMMoD, StreamLayout]:
    """Random weights, the same for every router."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer(corpus(), VideoLLMMoDConfig(), 512)
    config = wide_config(len(tokenizer), router=router, keep_ratio=keep_ratio)
    model = VideoLLMMoD(config).eval()
    layout = StreamLayout.of(tokenizer, config)
    return model, layout


def frames_of(n: int, seed: int = 0, speaks: float = SPEAKS) -> Tensor:
    """Noise (n, 96, 96, 3) with a white picture now and then, at which models are to speak."""
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randint(0, 256, (n, 96, 96, 3), dtype=torch.uint8, generator=generator)
    frames[torch.rand(n, generator=generator) < speaks] = 255
    return frames


def teach(model: VideoLLMMoD, layout: StreamLayout) -> None:
    """Set the head's silence row so that the model speaks at white pictures and at no others.

    Random weights would speak more or less often from one router to the next, and the time of
    words would hide that of frames. The row is Fisher's discriminant of the states after either
    kind of frame; along the mean state all agree, so that a share of it is a constant bias.
    """
    head = model.language_model.lm_head
    read: list[Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    states: dict[bool, list[Tensor]] = {False: [], True: []}
    # What is said changes the states that follow: the row is set again from all that were met.
    for seed in range(3):
        # Side by side, for that takes a third of the time; white comes to all of them at once, so
        # that it does not matter whose state is which.
        white = (frames_of(TAUGHT_FRAMES, seed=seed, speaks=0.2) == 255).flatten(1).all(1)
        streams = [frames_of(TAUGHT_FRAMES, seed=s, speaks=0) for s in range(3, 3 + TAUGHT)]
        engine = engine_of(model, layout)
        for number in range(TAUGHT):
            engine.open(f"s{number}", max_new_tokens=8)
        for tick in range(TAUGHT_FRAMES):
            for number, frames in enumerate(streams):
                frame = frames[tick : tick + 1]
                engine.push(f"s{number}", torch.full_like(frame, 255) if white[tick] else frame)
            read.clear()
            Heard(engine).drain()
            if len(read[0]) != TAUGHT:
                raise AssertionError("the frames of one moment were not taken in together")
            states[bool(white[tick])] += read[0]
        calm, struck = (torch.stack(states[kind]).double() for kind in (False, True))
        spread = torch.cat([calm - calm.mean(0), struck - struck.mean(0)]).T.cov()
        spread += 0.3 * spread.diagonal().mean() * torch.eye(len(spread))
        apart = torch.linalg.solve(spread, calm.mean(0) - struck.mean(0))
        apart /= (calm.mean(0) - struck.mean(0)) @ apart
        bias = torch.cat([calm, struck]).mean(0)
        middle = (calm.mean(0) + struck.mean(0)) @ apart / 2
        # So large that no other row counts beside it.
        row = 1000.0 * (apart - middle * bias / (bias @ bias))
        with torch.no_grad():
            head.weight[layout.silence] = row.float()
    hook.remove()


def silenced(model: VideoLLMMoD, layout: StreamLayout) -> VideoLLMMoD:
    """A copy that never speaks, to time the arithmetic of frames alone."""
    quiet = copy.deepcopy(model)
    with torch.no_grad():
        quiet.language_model.lm_head.weight.zero_()
    hush = torch.zeros(model.config.text_config.vocab_size)
    hush[layout.silence] = 1.0
    quiet.language_model.lm_head.bias = torch.nn.Parameter(hush)
    return quiet


def engine_of(model: VideoLLMMoD, layout: StreamLayout, gib: float = 2.0) -> Engine:
    """An engine with room for everything here."""
    return Engine(model, layout, Memory(model.config, int(gib * 2**30)))


class Heard:
    """The narrations of an engine's sessions."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._words: dict[tuple[str, int], list[int]] = {}
        self.said: list[Said] = []

    def step(self) -> None:
        """One step of the engine."""
        for event in self._engine.step():
            if isinstance(event, Word) and event.frame is not None:
                self._words.setdefault((event.session, event.frame), []).append(event.token)
            elif isinstance(event, TurnEnded) and event.frame is not None:
                tokens = self._words.pop((event.session, event.frame), [])
                self.said.append(Said(event.frame, tokens))

    def drain(self) -> None:
        """Step until nothing waits."""
        while self._engine.busy:
            self.step()


def timed_bulk(
    model: VideoLLMMoD, layout: StreamLayout, frames: Tensor
) -> tuple[float, list[Said], int]:
    """Seconds for one stream whose frames all wait, what was said, and the bytes of the pages that
    it holds at its end."""
    engine = engine_of(model, layout)
    engine.open("s", max_new_tokens=8, kind="bulk")
    engine.push("s", frames)
    started = time.perf_counter()
    heard = Heard(engine)
    heard.drain()
    return time.perf_counter() - started, heard.said, engine.memory.used_bytes


def timed_plain(
    model: VideoLLMMoD, layout: StreamLayout, frames: Tensor
) -> tuple[float, list[Said]]:
    """The same by the plain loop."""
    started = time.perf_counter()
    loop = PlainLoop(model, layout, max_new_tokens=8)
    loop.watch(frames)
    return time.perf_counter() - started, loop.said


def timed_live(
    model: VideoLLMMoD, layout: StreamLayout, streams: Sequence[Tensor]
) -> tuple[float, list[Said]]:
    """Seconds for sessions that each get one frame at a time, as live streams do.

    A frame of each comes with every step. Who speaks lags behind meanwhile and then catches up;
    nobody waits for another.
    """
    engine = engine_of(model, layout)
    for number in range(len(streams)):
        engine.open(f"s{number}", max_new_tokens=8)
    heard = Heard(engine)
    started = time.perf_counter()
    for tick in range(len(streams[0])):
        for number, frames in enumerate(streams):
            engine.push(f"s{number}", frames[tick : tick + 1])
        heard.step()
    heard.drain()
    return time.perf_counter() - started, heard.said


def timed_plain_live(
    model: VideoLLMMoD, layout: StreamLayout, streams: Sequence[Tensor]
) -> tuple[float, list[Said]]:
    """The same by one plain loop a stream, taking turns."""
    loops = [PlainLoop(model, layout, max_new_tokens=8) for _ in streams]
    started = time.perf_counter()
    for tick in range(len(streams[0])):
        for loop, frames in zip(loops, streams, strict=True):
            loop.watch(frames[tick : tick + 1])
    return time.perf_counter() - started, [said for loop in loops for said in loop.said]


def timed_restore(
    model: VideoLLMMoD, layout: StreamLayout, frames: Tensor
) -> tuple[float, float, int]:
    """Seconds to bring a session back from a snapshot, and to compute its cache again; bytes of
    that cache."""
    engine = engine_of(model, layout)
    engine.open("s", max_new_tokens=8)
    engine.push("s", frames)
    Heard(engine).drain()
    seconds = []
    for with_cache in (True, False):
        data = engine.snapshot("s", with_cache=with_cache)
        other = engine_of(model, layout)
        started = time.perf_counter()
        other.restore("s", data)
        other.bring_in("s")
        seconds.append(time.perf_counter() - started)
    return seconds[0], seconds[1], engine.memory.used_bytes


def measure(quick: bool) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """All comparisons on one thread."""
    torch.set_num_threads(1)
    most = limits.measured()
    # Fewer frames and the rounding up to whole pages would show in the ratio of cache bytes.
    runs, n_bulk, n_live = (1, 300, 12) if quick else (5, 600, 40)
    (dense, layout), (mod, _), (plain, _) = build("none"), build("bounded"), build("none")
    for model in (dense, mod):
        teach(model, layout)
    plain.load_state_dict(dense.state_dict())
    plain.language_model.set_attn_implementation("sdpa")
    quiet_dense, quiet_mod = silenced(dense, layout), silenced(mod, layout)
    frames = frames_of(n_bulk)
    streams = [frames_of(n_live, seed=10 + i) for i in range(LIVE_SESSIONS)]
    found: dict[str, list[float]] = {}
    same = True
    for number in range(runs + 1):
        plain_s, plain_said = timed_plain(plain, layout, frames)
        dense_s, dense_said, _ = timed_bulk(dense, layout, frames)
        mod_s, mod_said, _ = timed_bulk(mod, layout, frames)
        quiet_dense_s, _, dense_bytes = timed_bulk(quiet_dense, layout, frames)
        quiet_mod_s, _, mod_bytes = timed_bulk(quiet_mod, layout, frames)
        plain_live_s, plain_live_said = timed_plain_live(plain, layout, streams)
        mod_live_s, mod_live_said = timed_live(mod, layout, streams)
        restore_s, rebuild_s, restored_bytes = timed_restore(mod, layout, frames)
        same &= plain_said == dense_said
        if not number:  # each side's first calls, which teaching has spared the models of one
            continue
        for name, value in (
            ("plain_bulk_s", plain_s),
            ("dense_bulk_s", dense_s),
            ("mod_bulk_s", mod_s),
            ("quiet_dense_s", quiet_dense_s),
            ("quiet_mod_s", quiet_mod_s),
            ("plain_live_s", plain_live_s),
            ("mod_live_s", mod_live_s),
            ("restore_s", restore_s),
            ("rebuild_s", rebuild_s),
        ):
            found.setdefault(name, []).append(value)
    if not same:
        raise AssertionError("engine and plain loop said different words at keep ratio 1")
    # Of the silent stream: the same text on both sides, one silence token a frame.
    work = {
        "quiet_mod": macs(mod.config, n_bulk, n_bulk),
        "quiet_dense": macs(dense.config, n_bulk, n_bulk),
    }
    cost = work["quiet_mod"] / work["quiet_dense"]

    def rate(done: float, name: str) -> float:
        return done / statistics.median(found[f"{name}_s"])

    def ratios_of(a: str, b: str, factor: float = 1.0) -> dict[str, float]:
        return ratio([factor * x / y for x, y in zip(found[a], found[b], strict=True)])

    ratios = {
        "bulk_over_plain_loop": ratios_of("plain_bulk_s", "mod_bulk_s"),
        "live16_over_plain_loop": ratios_of("plain_live_s", "mod_live_s"),
        "mod_time_over_cost_model": ratios_of("quiet_mod_s", "quiet_dense_s", 1.0 / cost),
        "mod_cache_over_dense": ratio([mod_bytes / dense_bytes]),
        "restore_over_prefill": ratios_of("restore_s", "rebuild_s"),
    }
    settings = {
        "width": WIDTH,
        "layers": LAYERS,
        "bulk_frames": n_bulk,
        "live_sessions": LIVE_SESSIONS,
        "live_frames": n_live,
        "speaks": SPEAKS,
        "threads": 1,
    }
    figures = {
        "seconds": found,
        "cost_model_ratio": cost,
        "narrations": {
            "bulk": {"dense": len(dense_said), "mod": len(mod_said)},
            "live": {"plain": len(plain_live_said), "mod": len(mod_live_said)},
        },
        "words_equal_plain_loop": same,
        "dense_engine_over_plain_loop": ratios_of("plain_bulk_s", "dense_bulk_s"),
        # Of the decoder's linear layers alone; a cache is read and written once.
        "limits": limits.beside(
            most,
            {name: rate(2 * done, name) for name, done in work.items()},
            {"restore": rate(2 * restored_bytes, "restore")},
        ),
    }
    return settings, ratios, figures


if __name__ == "__main__":
    run("engine", measure)
