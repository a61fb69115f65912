"""What the engine's knobs cost in time and cache: chunk, keep ratio, router, page size.

Times are those of the processor in the one thread that runs the model: whatever else the machine
does meanwhile is not among them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor

from bench.ablate_knob import Knob, Row, in_turn
from bench.engine import Heard, build, frames_of, silenced
from bench.models import wide_config
from bench.plain import Said
from mod.config import VideoLLMMoDConfig
from mod.cost import macs
from mod.engine.cache import PAGE_SIZE, Memory
from mod.engine.engine import Engine
from mod.engine.speculation import MAX_CHUNK
from mod.layout import StreamLayout
from mod.modeling import VideoLLMMoD

#: Steps of frames that are decided at once, at most.
CHUNKS = (1, 4, 8, 16, 32, 64)
#: Of a frame's ten tokens one is the least that runs, so that 0.05 would be 0.1 again.
KEEPS = (0.1, 0.2, 0.3, 0.5, 0.75, 1.0)
KEEP = 0.2
PAGES = (8, 16, 32, 64, 128, 256)
#: Routers and where they stand; the first is what ``longreel-tiny`` has.
FORMS: dict[str, dict[str, Any]] = {
    "bounded": {},
    "learned": {"router": "learned"},
    "uniform": {"router": "uniform"},
    "random": {"router": "random"},
    "norm": {"router": "norm"},
    "redundancy": {"router": "redundancy"},
    "attention": {"router": "attention"},
    "skip": {"router": "skip"},
    "none": {"router": "none"},
    "bounded, decision free": {"always_keep_decision": False},
    "bounded, interleaved-deep": {"mod_layers": "interleaved-deep"},
    "bounded, all-deep": {"mod_layers": "all-deep"},
    "bounded, all": {"mod_layers": "all"},
}
LIVE_SESSIONS = 8
#: Of all caches of an engine, in bytes.
_ROOM = 2**28


def watched(
    model: VideoLLMMoD, layout: StreamLayout, frames: Tensor, max_chunk: int | None = None
) -> tuple[Row, list[Said]]:
    """One stream whose frames all wait, and what was said.

    Returns:
        Milliseconds a frame and of the longest step, the share (0-1) of frames that were run in
        vain, KiB of keys and values a frame.

    Raises:
        RuntimeError: the engine could not take something in.
    """
    engine = Engine(model, layout, Memory(model.config, _ROOM), max_chunk=max_chunk)
    engine.open("s", kind="bulk")
    engine.push("s", frames)
    heard = Heard(engine)
    longest, started = 0.0, time.thread_time()
    while engine.busy:
        before = time.thread_time()
        heard.step()
        longest = max(longest, time.thread_time() - before)
    spent = time.thread_time() - started
    did, n = engine.figures, len(frames)
    if did.failures:
        raise RuntimeError(f"{did.failures} inputs failed")
    row = {
        "ms_a_frame": 1e3 * spent / n,
        "longest_step_ms": 1e3 * longest,
        "in_vain": 1.0 - did.frames_kept / did.frames_run,
        "kib_a_frame": engine.held_bytes("s") / n / 1024,
    }
    return row, heard.said


def watched_live(
    model: VideoLLMMoD, layout: StreamLayout, streams: Sequence[Tensor], page_size: int
) -> Row:
    """Streams that grow side by side, a frame of each with every step.

    Returns:
        Milliseconds a frame; bytes of pages over those of the keys and values in them.
    """
    memory = Memory(model.config, _ROOM, page_size=page_size)
    engine = Engine(model, layout, memory)
    names = [f"s{number}" for number in range(len(streams))]
    for name in names:
        engine.open(name)
    started = time.thread_time()
    for tick in range(len(streams[0])):
        for name, frames in zip(names, streams, strict=True):
            engine.push(name, frames[tick : tick + 1])
        engine.step()
    Heard(engine).drain()
    spent = time.thread_time() - started
    held = sum(engine.held_bytes(name) for name in names)
    n = sum(len(frames) for frames in streams)
    return {"ms_a_frame": 1e3 * spent / n, "pages_over_held": memory.used_bytes / held}


class Wide:
    """The geometry in which decoder layers dominate, with weights that never speak.

    All forms share one language model: what differs is where tokens go.
    """

    def __init__(self) -> None:
        dense, self.layout = build("none")
        self._dense = silenced(dense, self.layout)

    def form(self, **fields: Any) -> VideoLLMMoD:
        """The model behind a router."""
        vocabulary = self._dense.config.text_config.vocab_size
        config = wide_config(vocabulary, **{"router": "bounded", "keep_ratio": KEEP, **fields})
        model = VideoLLMMoD(config).eval()
        model.language_model = self._dense.language_model
        return model

    def chunks(self, frames: int, rounds: int) -> Knob:
        """Chunks of a stream in which nothing is ever said."""
        return chunks(self.form(), self.layout, frames_of(frames), rounds)

    def keeps(self, frames: int, rounds: int) -> Knob:
        """Keep ratios; beside time and cache what the cost model says of the arithmetic."""
        film = frames_of(frames)
        forms = {str(keep): self.form(keep_ratio=keep) for keep in KEEPS}

        def run(model: VideoLLMMoD) -> Row:
            row, _ = watched(model, self.layout, film)
            return {**row, "gmacs_a_frame": _gmacs(model.config)}

        return in_turn(str(KEEP), {name: partial(run, m) for name, m in forms.items()}, rounds)

    def routers(self, frames: int, rounds: int) -> Knob:
        """Routers and placements."""
        film = frames_of(frames)

        def run(model: VideoLLMMoD) -> Row:
            row, _ = watched(model, self.layout, film)
            return {**row, "gmacs_a_frame": _gmacs(model.config)}

        forms = {name: self.form(**fields) for name, fields in FORMS.items()}
        return in_turn("bounded", {name: partial(run, m) for name, m in forms.items()}, rounds)

    def pages(self, frames: int, rounds: int) -> Knob:
        """Page sizes under live sessions."""
        model = self.form()
        streams = [frames_of(frames, seed=10 + number) for number in range(LIVE_SESSIONS)]
        sides = {
            str(size): partial(watched_live, model, self.layout, streams, size) for size in PAGES
        }
        return in_turn(str(PAGE_SIZE), sides, rounds)


def chunks(model: VideoLLMMoD, layout: StreamLayout, frames: Tensor, rounds: int) -> Knob:
    """Sizes of chunks on one stream; beside the cost whether (1 or 0) the same was said as at
    first."""
    _, first = watched(model, layout, frames)

    def run(most: int) -> Row:
        row, said = watched(model, layout, frames, most)
        return {**row, "same_words": float(said == first)}

    return in_turn(str(MAX_CHUNK), {str(most): partial(run, most) for most in CHUNKS}, rounds)


def _gmacs(config: VideoLLMMoDConfig) -> float:
    return macs(config, 1, 1) / 1e9
