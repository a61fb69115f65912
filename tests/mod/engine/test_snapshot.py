"""Snapshots are read by a model that keeps as many of a frame's tokens, and by no other."""

from __future__ import annotations

from typing import Any

import pytest

from mod.engine.cache import Memory
from mod.engine.engine import Engine
from mod.engine.policy import Policy, Retrieve, Window
from mod.engine.snapshot import SnapshotError
from tests.mod.engine.models import drain
from tests.mod.small import small_layout, small_model, some_frames

FRAMES = some_frames(12, seed=9)


def made(**fields: Any) -> Engine:
    """An engine whose identity says nothing of what its model keeps."""
    model = small_model(router="bounded", **fields)
    return Engine(model, small_layout(model.config), Memory(model.config, 2**23), identity="one")


def packed(policy: Policy | None, frames: int, questions: int, *, with_cache: bool) -> bytes:
    engine = made(keep_ratio=0.3)
    engine.open("a", policy=policy, max_new_tokens=2)
    engine.push("a", FRAMES[:frames])
    for number in range(questions):
        engine.ask("a", str(number), "What is there?")
    drain(engine)
    return engine.snapshot("a", with_cache=with_cache)


@pytest.mark.parametrize("with_cache", [True, False])
@pytest.mark.parametrize(
    ("policy", "frames", "questions"),
    [(None, 5, 0), (Window(4, 2, 16), 8, 0), (Retrieve(4, 2, 16, blocks=1), 4, 6)],
)
def test_a_model_of_another_keep_ratio_reads_no_snapshot(
    policy: Policy | None, frames: int, questions: int, with_cache: bool
) -> None:
    """Guards against keys that are read as those of other tokens: of all frames, of those in the
    window, and of those that left it where none is left."""
    data = packed(policy, frames, questions, with_cache=with_cache)
    made(keep_ratio=0.3).restore("b", data)
    for ratio in (0.8, 1.0):
        with pytest.raises(SnapshotError, match="keeps other numbers of a frame's tokens"):
            made(keep_ratio=ratio).restore("b", data)


def test_layers_that_lie_otherwise_read_no_cache() -> None:
    """Guards a stream of text alone, which is as long in all layers: where it brings its cache,
    each layer must lie among as many as before."""
    made(keep_ratio=1.0).restore("b", packed(None, 0, 1, with_cache=False))
    with pytest.raises(SnapshotError, match="keeps other numbers of a frame's tokens"):
        made(keep_ratio=1.0).restore("b", packed(None, 0, 1, with_cache=True))
