"""What the router kept of a session's last frames, beside what it keeps in a plain session."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mod.engine.events import TurnEnded
from mod.modeling import VideoLLMMoD
from mod.routing import Routing
from tests.mod.engine.models import drain, talking_engine, talking_model
from tests.mod.plain import PlainSession
from tests.mod.small import some_frames

FRAMES = some_frames(40, seed=9)


def plainly_kept(model: VideoLLMMoD, session: PlainSession, frames: Tensor) -> list[list[int]]:
    """Of each frame and vision token, in how many layers it ran when seen alone."""
    outcomes: list[Tensor] = []

    def note(_module: Any, _inputs: Any, out: Routing) -> None:
        outcomes.append(out.kept)

    counts = []
    hooks = [router.register_forward_hook(note) for router in model.routers.values()]
    for frame in frames:
        outcomes.clear()
        session.watch(frame[None])
        # A frame that speaks is not fed again, so each layer routed it once.
        assert len(outcomes) == len(model.routers)
        counts.append(torch.cat(outcomes).sum(0).tolist())
    for hook in hooks:
        hook.remove()
    return counts


@pytest.mark.slow
def test_it_is_what_the_router_keeps_frame_by_frame() -> None:
    """Guards against counts of frames that were fed ahead and cut off, of a neighbour in the same
    step, or of another frame."""
    model, layout = talking_model()
    expected = plainly_kept(model, PlainSession(model, layout, max_new_tokens=3), FRAMES)
    engine = talking_engine()
    for name in ("deaf", "door", "other"):
        engine.open(name, max_new_tokens=3)
    engine.watch_kept("door", 100)
    engine.push("deaf", FRAMES.flip(0))
    engine.push("other", FRAMES.flip(0))
    engine.push("door", FRAMES[:17])
    engine.ask("door", "q", "What is there?")
    engine.push("door", FRAMES[17:])
    spoke = [e for e in drain(engine) if isinstance(e, TurnEnded) and e.session == "door"]
    assert len(spoke) > 5  # chunks were cut
    first, rows, columns = model.config.token_grid
    # The question changed what came after it.
    for number in range(17):
        kept = engine.kept("door", number)
        assert kept is not None
        assert kept.counts == expected[number][first : first + rows * columns]
        assert kept.layers == len(model.config.mod_layers) > 0
    assert all(engine.kept("door", number) is not None for number in range(17, 40))
    assert engine.kept("door", 40) is None
    assert engine.kept("deaf", 0) is None


def test_only_the_last_frames_are_remembered() -> None:
    """Guards against a view that grows with the stream."""
    engine = talking_engine()
    engine.open("door", max_new_tokens=3)
    engine.watch_kept("door", 8)
    engine.push("door", FRAMES)
    drain(engine)
    there = [number for number in range(40) if engine.kept("door", number) is not None]
    assert there == list(range(32, 40))
