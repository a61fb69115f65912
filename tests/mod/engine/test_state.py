"""How long the oldest frame of a session has waited, which is what gives it its turn."""

from __future__ import annotations

from itertools import count

from mod.engine.events import FrameSeen
from mod.engine.state import FrameRun
from tests.mod.engine.models import talking_engine
from tests.mod.small import some_frames

FRAMES = some_frames(40, seed=9)


def test_since_is_when_the_oldest_frame_that_waits_arrived() -> None:
    """Guards against the age of frames that were taken long ago."""
    run = FrameRun.of(FRAMES[:3], None, 1.0)
    run.extend(FRAMES[3:5], 2.0)
    run.extend(FRAMES[5:9], 3.0)
    run.drop(2, 2)
    assert run.since == 1.0
    run.drop(2, 2)
    assert run.since == 2.0
    alone, rest = run.split(2)
    assert (alone.since, rest.since) == (2.0, 3.0)
    rest.extend(FRAMES[9:], 4.0)
    rest.drop(3, 3)
    assert rest.since == 4.0


def test_a_session_that_never_catches_up_does_not_starve_others() -> None:
    """Guards a live session beside one whose frames come as fast as they are taken, where a step
    has room for one of the two.
    """
    engine = talking_engine(step_tokens=1, clock=count().__next__)
    engine.open("behind", max_new_tokens=0)
    engine.open("late", max_new_tokens=0)
    engine.push("behind", FRAMES[:3])
    engine.push("late", FRAMES[:1])
    seen = []
    for frame in FRAMES[3:13]:
        engine.push("behind", frame[None])
        seen += [event.session for event in engine.step() if isinstance(event, FrameSeen)]
    assert seen == ["behind"] * 3 + ["late"] + ["behind"] * 6
