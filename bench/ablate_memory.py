"""What a stream's memory costs and what it still knows: windows, kept text, blocks looked back at.

The bundled model narrates a long stream and is asked about its beginning, its counts and its end.
An answer is right where it follows from the model's own narrations. It learned from streams of 64
frames at most and answers few of these questions rightly even where it forgets nothing: costs are
what this measures well, and answers show no order of the policies.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from bench.ablate_knob import Knob, Row, gathered
from bench.ablate_quality import bundled, film
from bench.model import HELD_OUT
from mod.engine.engine import Engine
from mod.engine.events import Collector
from mod.engine.policy import Full, Policy, Retrieve, Window
from mod.engine.viewer import Viewer
from mod.evaluate import parse_look
from mod.layout import StreamLayout
from mod.modeling import VideoLLMMoD
from mod.world.questions import QUESTIONS

#: Of which part of the stream each question asks.
ASKED: Mapping[str, Sequence[str]] = {
    "beginning": ("How did it begin?", "What appeared first?"),
    "counts": ("How many cuts so far?", "How many things appeared?"),
    "recent": ("How does it look now?", "What did the camera do last?", "What met last?"),
}
#: Where text is to be seen leaving as well, and blocks to be worth looking back at.
SHORT, LITTLE = 64, 64
DEFAULT = "window 256"
POLICIES: dict[str, Full | Window] = {
    "full": Full(),
    "window 32": Window(frames=32),
    "window 64": Window(frames=64),
    "window 128": Window(frames=128),
    DEFAULT: Window(),
    "window 64, text 64": Window(frames=SHORT, text=LITTLE),
    "retrieve 1": Retrieve(frames=SHORT, text=LITTLE, blocks=1),
    "retrieve 4": Retrieve(frames=SHORT, text=LITTLE, blocks=4),
    "retrieve 8": Retrieve(frames=SHORT, text=LITTLE, blocks=8),
}


@dataclass(frozen=True)
class Lived:
    """One stream under one policy: what it cost, and the answer to each question."""

    cost: Row
    narrations: list[str]
    answers: dict[str, str]


def lived(model: VideoLLMMoD, layout: StreamLayout, policy: Policy, frames: Tensor) -> Lived:
    """Narrate ``frames`` and answer every question on a fork of the stream.

    The cost: milliseconds a frame of the whole and of the last quarter, MiB of pages and of what
    was offloaded at its end, milliseconds an answer.
    """
    viewer = Viewer(model, layout, policy=policy)
    engine, quarter = viewer.engine, len(frames) // 4
    started = time.thread_time()
    outcomes = viewer.watch(frames[:-quarter])
    late = time.thread_time()
    outcomes += viewer.watch(frames[-quarter:])
    ended = time.thread_time()
    held = engine.memory.used_bytes
    offloaded = engine.offloaded_bytes("viewer")
    asked = time.thread_time()
    answers = {question: _answer(engine, question) for question in QUESTIONS}
    answered = time.thread_time() - asked
    cost = {
        "ms_a_frame": 1e3 * (ended - started) / len(frames),
        "late_ms_a_frame": 1e3 * (ended - late) / quarter,
        "held_mib": held / 2**20,
        "offloaded_mib": offloaded / 2**20,
        "ms_an_answer": 1e3 * answered / len(answers),
    }
    return Lived(cost, [o.text for o in outcomes if o.text], answers)


def right(one: Lived) -> Row:
    """Of each kind of question, the share (0-1) of answers that follow from the narrations."""
    # From a stream without any look told nothing follows about its beginning or its end.
    told = any(parse_look(text) for text in one.narrations)
    return {
        kind: sum(told and one.answers[q] == QUESTIONS[q](one.narrations) for q in questions)
        / len(questions)
        for kind, questions in ASKED.items()
    }


def as_full(one: Lived, full: Lived) -> float:
    """Share (0-1) of the answers that are those of a stream that forgets nothing."""
    return sum(one.answers[q] == full.answers[q] for q in full.answers) / len(full.answers)


def memories(streams: int, n_frames: int) -> Knob:
    """All policies in turn on each of some streams."""
    rounds = []
    model, layout = bundled()
    lived(model, layout, Full(), film(HELD_OUT, 40))
    for number in range(streams):
        frames = film(HELD_OUT + 2_000 + number, n_frames)
        found = {name: lived(model, layout, policy, frames) for name, policy in POLICIES.items()}
        rounds.append(
            {
                name: {**one.cost, **right(one), "as_full": as_full(one, found["full"])}
                for name, one in found.items()
            }
        )
    return gathered(DEFAULT, rounds)


def _answer(engine: Engine, question: str) -> str:
    """The answer of a fork, which is then forgotten."""
    engine.fork("viewer", "aside")
    engine.ask("aside", "asked", question)
    told = Collector()
    while engine.busy:
        for event in engine.step():
            told.take(event)
    engine.close("aside")
    if told.error:
        raise RuntimeError(told.error)
    return told.answer
