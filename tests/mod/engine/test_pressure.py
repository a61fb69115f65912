"""Pools of any size: idle sessions make room, and who cannot fit fails alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mod.engine.cache import Memory, PagedCache
from mod.engine.engine import Engine
from mod.engine.events import Event, Failed, FrameSeen, TurnEnded
from mod.engine.policy import Full, Policy, Retrieve, Window
from tests.mod.engine.models import drain, talking_model
from tests.mod.plain import PlainSession
from tests.mod.small import some_frames

FRAMES = some_frames(60, seed=9)
MAX_NEW = 3
Said = list[tuple[int, str]]


def _engine(n_bytes: int, **options: object) -> Engine:
    model, layout = talking_model()
    memory = Memory(model.config, n_bytes, page_size=8)
    return Engine(model, layout, memory, **options)  # type: ignore[arg-type]


def _said(events: list[Event], name: str) -> Said:
    return [
        (event.frame, event.text)
        for event in events
        if isinstance(event, TurnEnded) and event.session == name and event.frame is not None
    ]


def _plainly(first: int, count: int) -> Said:
    session = PlainSession(*talking_model(), max_new_tokens=MAX_NEW)
    outcomes = session.watch(FRAMES[first : first + count])
    return [(i, o.text) for i, o in enumerate(outcomes) if o.text is not None]


def _need(count: int) -> int:
    """Bytes of the pages that one session of ``count`` frames ends with."""
    engine = _engine(8 * 2**20)
    engine.open("a", max_new_tokens=MAX_NEW)
    engine.push("a", FRAMES[:count])
    drain(engine)
    return engine.memory.used_bytes


@pytest.mark.slow
def test_idle_sessions_are_evicted_instead_of_anyone_failing() -> None:
    """Guards eviction: ten sessions where two and a half fit, and none is lost."""
    engine = _engine(int(2.5 * _need(20)))
    events: list[Event] = []
    for number in range(10):
        engine.open(f"s{number}", max_new_tokens=MAX_NEW)
        engine.push(f"s{number}", FRAMES[number : number + 10])
        events += drain(engine)
    warm = [s.name for s in engine._sessions.values() if s.cache is not None]
    assert 2 <= len(warm) <= 5
    assert warm[-1] == "s9"
    for number in range(10):
        engine.push(f"s{number}", FRAMES[number + 10 : number + 20])
        events += drain(engine)
    assert not any(isinstance(e, Failed) for e in events)
    for number in range(10):
        assert _said(events, f"s{number}") == _plainly(number, 20)


@pytest.mark.slow
def test_a_session_that_alone_does_not_fit_fails_and_the_others_go_on() -> None:
    """Guards against one stream that takes all others with it when it outgrows memory."""
    engine = _engine(int(1.2 * _need(20)))
    engine.open("big", max_new_tokens=MAX_NEW)
    for start in range(0, 60, 10):
        engine.push("big", FRAMES[start : start + 10])
    for name in ("x", "y"):
        engine.open(name, max_new_tokens=MAX_NEW)
        engine.push(name, FRAMES[:12])
    events = drain(engine)
    failed = [e for e in events if isinstance(e, Failed)]
    assert failed
    assert {e.session for e in failed} == {"big"}
    assert all("no longer fits" in e.error for e in failed)
    assert _said(events, "x") == _said(events, "y") == _plainly(0, 12)
    # What it said before stands, and a question that fits is still answered elsewhere.
    seen = [e.frame for e in events if isinstance(e, FrameSeen) and e.session == "big"]
    assert seen[:15] == list(range(15))
    other = _engine(8 * 2**20)
    other.restore("big", engine.snapshot("big"))
    other.ask("big", "q", "what now?")
    assert [e.question for e in drain(other) if isinstance(e, TurnEnded)] == ["q"]


@pytest.mark.slow
def test_who_wants_room_that_cannot_be_made_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against an eviction that fails and takes every session of the engine with it."""
    engine = _engine(int(2.2 * _need(20)))
    events: list[Event] = []
    for name in ("idle", "busy", "new"):
        engine.open(name, max_new_tokens=MAX_NEW)
    for name in ("idle", "busy"):
        engine.push(name, FRAMES[:16])
        events += drain(engine)

    def full(cache: PagedCache) -> list[torch.Tensor]:
        raise torch.OutOfMemoryError("no byte is left\nbut this")

    evictions = engine.figures.evictions
    with monkeypatch.context() as patch:
        patch.setattr(PagedCache, "save", full)
        engine.push("busy", FRAMES[16:17])
        engine.push("new", FRAMES[:20])
        events += drain(engine)
    failed = [e for e in events if isinstance(e, Failed)]
    assert failed
    assert {(e.session, e.error) for e in failed} == {
        ("new", "no room can be made for it: OutOfMemoryError: no byte is left")
    }
    assert engine.figures.evictions == evictions
    # Who was to leave has lost nothing, and who failed goes on once there is room.
    engine.push("busy", FRAMES[17:20])
    engine.push("idle", FRAMES[16:20])
    engine.push("new", FRAMES[:1])
    after = drain(engine)
    assert not any(isinstance(e, Failed) for e in after)
    assert _said(events + after, "idle") == _said(events + after, "busy") == _plainly(0, 20)
    assert [e.frame for e in after if isinstance(e, FrameSeen) and e.session == "new"] == [20]


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(
    st.floats(0.15, 3.0),
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(1, 14), st.integers(0, 3)),
        min_size=3,
        max_size=14,
    ),
    st.sampled_from(["copy", "rebuild"]),
    st.sampled_from(
        [
            Full(),
            Window(frames=8, block=4, text=12),
            Retrieve(frames=8, block=4, text=12, blocks=2),
        ]
    ),
)
def test_in_a_pool_of_any_size_every_input_is_taken_in_or_fails_by_name(
    share: float, inputs: list[tuple[int, int, int]], spill: str, policy: Policy
) -> None:
    """Guards against lost inputs, endless waiting and leaked pages, and against any trace of
    pressure in the words of a session that never failed."""
    small, ample = (_engine(int(size), spill=spill) for size in (share * _need(20), 8 * 2**20))
    for engine in (small, ample):
        for number in range(4):
            engine.open(f"s{number}", max_new_tokens=MAX_NEW, policy=policy)
    events: dict[int, list[Event]] = {0: [], 1: []}
    pushed = [0] * 4
    asked: list[list[str]] = [[] for _ in range(4)]
    for number, (which, frames, steps) in enumerate(inputs):
        name = f"s{which}"
        for side, engine in enumerate((small, ample)):
            if frames > 11:
                engine.ask(name, f"q{number}", "what now?")
            else:
                engine.push(name, FRAMES[:frames])
            for _ in range(steps):
                events[side] += engine.step()
        if frames > 11:
            asked[which].append(f"q{number}")
        else:
            pushed[which] += frames
    for side, engine in enumerate((small, ample)):
        events[side] += drain(engine)
    assert not any(isinstance(e, Failed) for e in events[1])
    for which in range(4):
        mine = [e for e in events[0] if e.session == f"s{which}"]
        failed = [e for e in mine if isinstance(e, Failed)]
        # Frame numbers go on over what failed, so the last one tells that none was lost.
        state = small._sessions[f"s{which}"]
        assert state.n_frames == pushed[which]
        ended = {e.question for e in [*mine] if isinstance(e, TurnEnded | Failed) and e.question}
        assert ended == set(asked[which])
        if not failed:
            theirs = [e for e in events[1] if e.session == f"s{which}"]
            assert _words(mine) == _words(theirs)
    for number in range(4):
        small.close(f"s{number}")
    assert small.memory.used_bytes == 0


def _words(events: list[Event]) -> list[tuple[int | None, str | None, str]]:
    return [(e.frame, e.question, e.text) for e in events if isinstance(e, TurnEnded)]
