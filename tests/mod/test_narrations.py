"""Narrations in time: all of a model's own, and none of a stream in which it should be silent.

Guards against a measure that a model which speaks all the time, or never, does well in.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mod.checkpoint import TINY, find_checkpoint
from mod.dialogue import Dialogue, Turn
from mod.engine.viewer import Viewer
from mod.loading import load
from mod.narrations import narrations, paired
from mod.world.dialogues import watch

FRAMES = st.lists(st.integers(0, 30), unique=True, max_size=8).map(sorted)


@given(FRAMES, FRAMES, st.integers(0, 4))
def test_no_narration_counts_twice_and_none_too_far(
    said: list[int], true: list[int], most: int
) -> None:
    found = paired(said, true, most)
    assert len(found) <= min(len(said), len(true))
    assert all(0 <= distance <= most for distance in found)
    assert len(paired(said, said, most)) == len(said)
    assert len(found) == len(paired(true, said, most))
    near = [s for s in said if any(abs(s - t) <= most for t in true)]
    assert bool(near) == bool(found)


@pytest.mark.slow
def test_its_own_narrations_are_found_and_shifted_ones_cost_time() -> None:
    model, layout = load(find_checkpoint(TINY))
    frames = watch(5, 40).frames
    viewer = Viewer(model, layout)
    texts = [o.text for o in viewer.watch(torch.from_numpy(frames[:20]))]
    viewer.ask("How did it begin?")
    texts += [o.text for o in viewer.watch(torch.from_numpy(frames[20:]))]
    own = Dialogue(frames, texts, (Turn(20, "How did it begin?", "Never mind."),))
    found = narrations(model, layout, [own])
    count = sum(text is not None for text in texts)
    assert count >= 3
    assert (found.precision, found.recall, found.f1, found.time_error_s) == (1.0, 1.0, 1.0, 0.0)
    assert (found.said, found.true) == (count, count)

    one = next(i for i, text in enumerate(texts) if text and i)
    moved: list[str | None] = [None] * 40
    moved[one + 2] = "Late."
    late = narrations(model, layout, [replace(own, texts=moved)])
    assert late.recall == 1.0
    assert late.precision == pytest.approx(1 / count)
    assert late.time_error_s is not None
    assert late.time_error_s <= 1.0
    silent = narrations(model, layout, [replace(own, texts=[None] * 40)])
    assert (silent.precision, silent.recall, silent.f1, silent.time_error_s) == (0, 0, 0, None)


def test_nothing_to_watch_is_nothing_said() -> None:
    model, layout = load(find_checkpoint(TINY))
    empty = Dialogue(np.zeros((0, 96, 96, 3), np.uint8), [])
    assert narrations(model, layout, [empty]).said == 0


@pytest.mark.slow
def test_a_stream_longer_than_usual_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards a run of days whose last step fails for want of cache."""
    monkeypatch.setattr("mod.narrations.CAPACITY_BYTES", 1)
    model, layout = load(find_checkpoint(TINY))
    seen = watch(5, 120, ask=False)
    assert narrations(model, layout, [seen]).said > 0
