"""Text that is too long for one step goes through the model in parts.

Guards a live session against waiting for another's long question, and a stream against traces of
text that was taken back, moved or failed midway.
"""

from __future__ import annotations

from typing import Literal
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mod.engine import work
from mod.engine.engine import Engine
from mod.engine.events import Event, Failed, FrameSeen, TurnEnded
from mod.engine.policy import Retrieve
from tests.mod.engine.models import drain, talking_engine, talking_model
from tests.mod.plain import PlainSession
from tests.mod.small import some_frames

FRAMES = some_frames(30, seed=9)
LONG = "Cut to a dark red scene. The camera pans left. " * 12
OPENING = "A bright blue scene. The camera tilts up. " * 12
MAX_NEW = 3
#: Tokens of a step; the texts above have some hundred each.
MOST = 16


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "MOST_TEXT", MOST)


def said(events: list[Event], session: str = "a") -> list[tuple[int | str | None, str]]:
    """What a session said, and to what."""
    assert not [e for e in events if isinstance(e, Failed)]
    ended = [e for e in events if isinstance(e, TurnEnded) and e.session == session]
    return [(e.frame if e.question is None else e.question, e.text) for e in ended]


def plainly(*inputs: int | str) -> list[tuple[int | str | None, str]]:
    """What a session without steps says to frames, by their number, and questions."""
    session = PlainSession(*talking_model(), instruction=OPENING, max_new_tokens=MAX_NEW)
    found: list[tuple[int | str | None, str]] = []
    frame = 0
    for one in inputs:
        if isinstance(one, str):
            found.append((one, session.ask(one)))
            continue
        (outcome,) = session.watch(FRAMES[one : one + 1])
        if outcome.text is not None:
            found.append((frame, outcome.text))
        frame += 1
    return found


def opened(**options: object) -> Engine:
    engine = talking_engine(**options)  # type: ignore[arg-type]
    engine.open("a", instruction=OPENING, max_new_tokens=MAX_NEW)
    return engine


def steps(engine: Engine, count: int) -> list[Event]:
    return [event for _ in range(count) for event in engine.step()]


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("push"), st.integers(1, 6)),
            st.tuples(st.just("ask"), st.just(0)),
            st.tuples(st.just("step"), st.integers(1, 9)),
            st.tuples(st.sampled_from(["evict", "fork", "snapshot", "withdraw"]), st.just(0)),
        ),
        min_size=3,
        max_size=20,
    ),
    st.sampled_from(["copy", "rebuild"]),
)
def test_words_are_those_of_text_fed_whole(operations: list[tuple[str, int]], spill: str) -> None:
    """Guards parts against all that can happen between two of them."""
    engine = opened(spill=spill)
    inputs: list[int | str] = []
    events: list[Event] = []
    for number, (kind, amount) in enumerate(operations):
        pushed = sum(isinstance(one, int) for one in inputs)
        if kind == "push":
            engine.push("a", FRAMES[pushed : pushed + amount])
            inputs += range(pushed, min(len(FRAMES), pushed + amount))
        elif kind == "ask":
            engine.ask("a", question := f"{number} {LONG}", question)
            inputs.append(question)
        elif kind == "step":
            events += steps(engine, amount)
        elif kind == "evict":
            engine.evict("a")
        elif kind == "snapshot":
            engine.snapshot("a")
        elif kind == "withdraw":
            last = inputs[-1] if inputs else None
            if isinstance(last, str) and engine.withdraw("a", last):
                inputs.pop()
        elif engine.speaking("a") is None:
            engine.fork("a", f"b{number}")
            engine.close(f"b{number}")
    events += drain(engine)
    assert said(events) == plainly(*inputs)


def test_no_step_is_longer_than_it_may_be() -> None:
    """Guards the bound itself, over an opening and a question of some hundred tokens each."""
    engine = opened()
    n = talking_model()[0].config.tokens_per_frame
    engine.push("a", FRAMES[:1])
    engine.ask("a", "q", LONG)
    most = before = 0
    while engine.busy:
        engine.step()
        total = sum(engine.figures.tokens.values())
        most, before = max(most, total - before), total
    assert before > 200
    assert most <= MOST + n + 1


@pytest.mark.parametrize("kind", ["live", "bulk"])
def test_a_live_frame_waits_for_one_part_at_most(kind: Literal["live", "bulk"]) -> None:
    engine = talking_engine()
    engine.open("asks", max_new_tokens=MAX_NEW, kind=kind)
    engine.open("live", max_new_tokens=1)
    engine.push("live", FRAMES[:1])
    events = drain(engine)
    engine.ask("asks", "q", LONG)
    waited = 1
    while not any(isinstance(e, TurnEnded) and e.session == "asks" for e in events):
        # It speaks at some of them, which takes steps as well.
        if engine.speaking("live") is None and waited < len(FRAMES):
            engine.push("live", FRAMES[waited : waited + 1])
            waited += 1
            seen = engine.step()
            assert [e.frame for e in seen if isinstance(e, FrameSeen)] == [waited - 1]
            events += seen
        events += engine.step()
    assert waited > 5


@pytest.mark.parametrize("how", ["withdraw", "cancel"])
def test_a_question_taken_back_midway_leaves_no_trace(how: str) -> None:
    engine = opened()
    engine.push("a", FRAMES[:5])
    events = drain(engine)
    lengths, used = engine.lengths("a"), engine.memory.used_bytes
    engine.ask("a", "never mind", LONG)
    steps(engine, 3)
    assert engine.memory.used_bytes > used
    if how == "withdraw":
        assert engine.withdraw("a", "never mind")
    else:
        engine.cancel("a")
    assert (engine.lengths("a"), engine.memory.used_bytes) == (lengths, used)
    engine.push("a", FRAMES[5:10])
    assert said(events + drain(engine)) == plainly(*range(10))


def test_a_part_that_fails_ends_its_question_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = opened()
    engine.push("a", FRAMES[:5])
    engine.ask("a", "bad", LONG)
    engine.push("a", FRAMES[5:10])
    events: list[Event] = []
    while not any(isinstance(e, FrameSeen) and e.frame == 4 for e in events):
        events += engine.step()
    while engine.speaking("a"):
        events += engine.step()
    model = talking_model()[0]
    forward = model.forward
    calls = 0

    def failing(stream: object, routings: object = None) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise torch.OutOfMemoryError("out of memory")
        out: Tensor = forward(stream, routings)  # type: ignore[arg-type]
        return out

    monkeypatch.setattr(model, "forward", failing)
    events += drain(engine)
    failed = [e for e in events if isinstance(e, Failed)]
    assert [(e.question, e.frame) for e in failed] == [("bad", None)]
    assert said([e for e in events if not isinstance(e, Failed)]) == plainly(*range(10))


def test_a_question_that_looks_back_is_fed_whole() -> None:
    """Guards retrieval: blocks are picked by all of a question, whatever its length."""

    def answers(most: int) -> list[tuple[int | str | None, str]]:
        with mock.patch.object(work, "MOST_TEXT", most):
            engine = talking_engine()
            policy = Retrieve(frames=8, block=4, blocks=1)
            engine.open("a", max_new_tokens=MAX_NEW, policy=policy)
            engine.push("a", FRAMES)
            engine.ask("a", "q", LONG)
            return said(drain(engine))

    assert answers(MOST) == answers(10**6)
