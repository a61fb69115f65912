"""What leaves a window where the oldest block is text alone, and what counts as its text."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from mod.engine.cache import Memory
from mod.engine.engine import Engine
from mod.engine.events import Event, Failed, FrameSeen, TurnEnded, Word
from mod.engine.policy import Policy, Retrieve, Window
from tests.mod import online
from tests.mod.engine.forgetful import ForgetfulSession
from tests.mod.engine.models import drain, talking_engine, talking_model
from tests.mod.small import some_frames

FRAMES = some_frames(14, seed=9)
MAX_NEW = 3
FIRST, SECOND = "what is there?", "what was there?"


def run(policy: Policy | None, frames: int = len(FRAMES)) -> list[Event]:
    """A question before any frame, frames, and another question."""
    engine = talking_engine()
    engine.open("a", max_new_tokens=MAX_NEW, policy=policy)
    engine.ask("a", FIRST, FIRST)
    engine.push("a", FRAMES[:frames])
    engine.ask("a", SECOND, SECOND)
    return drain(engine)


@cache
def fields() -> dict[str, Any]:
    """Of a window whose first block is full by a question and its answer, and that keeps all of
    them but for what stays with the opening.
    """
    model, layout = talking_model()
    words = [e for e in run(None) if isinstance(e, Word) and e.question == FIRST]
    return {
        "frames": 4,
        "block": 2,
        "text": len(layout.ids(layout.question(FIRST))) + len(words),
        "sinks": len(layout.ids(layout.opening(model.config.instruction))) + 3,
    }


def said(events: list[Event]) -> list[tuple[int | str | None, str]]:
    assert not [event for event in events if isinstance(event, Failed)]
    ended = [event for event in events if isinstance(event, TurnEnded)]
    return [(e.frame if e.question is None else e.question, e.text) for e in ended]


def test_a_block_of_text_that_is_kept_whole_leaves_the_window_open() -> None:
    """Guards against a session that fails for ever once a block leaves of which all stays."""
    policy = Window(**fields())
    plain = ForgetfulSession(*talking_model(), policy, MAX_NEW)
    expected: list[tuple[int | str | None, str]] = [(FIRST, plain.ask(FIRST))]
    for number, frame in enumerate(FRAMES):
        if (text := plain.watch(frame[None])) is not None:
            expected.append((number, text))
    expected.append((SECOND, plain.ask(SECOND)))
    assert said(run(policy)) == expected


@pytest.mark.parametrize("frames", [5, len(FRAMES)])
def test_a_block_of_which_all_is_kept_can_be_looked_back_at(frames: int) -> None:
    """Guards a question against a block of which nothing is left to show: its text is kept."""
    events = run(Retrieve(**fields()), frames)
    *narrations, (question, _) = said(events)
    assert question == SECOND
    assert narrations == said(run(Window(**fields()), frames))[:-1]
    assert sum(isinstance(event, FrameSeen) for event in events) == frames


def test_an_opening_of_several_parts_is_no_text_of_the_first_block() -> None:
    """Guards against a first block that a long instruction fills: it is not what was asked."""
    model, layout = online.published()
    engine = Engine(model, layout, Memory(model.config, 2**24))
    engine.open("a", instruction="Be of help. " * 20, max_new_tokens=MAX_NEW, policy=Window())
    engine.ask("a", "q", FIRST)
    words = [event for event in drain(engine) if isinstance(event, Word)]
    question = layout.ids(layout.question(FIRST, watching=False))
    # A newline may be one token with that at the end of the instruction.
    assert abs(engine._sessions["a"].past.text - len(question) - len(words)) <= 1
