"""Windows that fit a model's context: none is longer than what the model was made for.

Guards against a window that runs a model beyond its context, a question that looks back beyond it,
and memory that is cut for nothing.
"""

from __future__ import annotations

import pytest

from mod.engine.log import FRAME
from mod.engine.policy import Full, Retrieve, Window, fitted, in_steps
from mod.places import Cursor, Places


def test_what_fits_or_has_no_bound_stays() -> None:
    assert fitted(Window(), None, 196) == Window()
    assert fitted(Full(), 100, 196) == Full()
    assert fitted(Window(frames=64), 32_768, 196) == Window(frames=64)


@pytest.mark.parametrize("context", [2048, 8192, 10_240, 32_768, 131_072])
@pytest.mark.parametrize("tokens", [11, 87, 172, 196])
def test_a_window_is_as_long_as_the_context_allows(context: int, tokens: int) -> None:
    policy = fitted(Window(frames=256), context, tokens)
    assert isinstance(policy, Window)
    most = policy.frames + policy.block
    room = context - 1024 - policy.text
    assert most * tokens <= max(room, 2 * tokens)
    # Nor much shorter than it could be.
    assert policy.frames == 256 or (most + policy.block) * tokens > room or policy.block == 1


def test_the_published_ones() -> None:
    assert fitted(Window(), 32_768, 196) == Window(frames=96, block=32)
    assert fitted(Retrieve(), 32_768, 196) == Retrieve(frames=80, block=8)
    assert fitted(Retrieve(), 8192, 108) == Retrieve(frames=24, block=4)
    # The Qwens, which see two frames as one: all of it fits.
    for context, tokens in ((128_000, 256), (262_144, 218)):
        steps = in_steps(Retrieve(), 2)
        assert fitted(steps, context, tokens) == steps


@pytest.mark.parametrize("context", [2048, 8192, 10_240, 32_768, 131_072])
@pytest.mark.parametrize("tokens", [11, 87, 172, 196])
@pytest.mark.parametrize("blocks", [1, 8, 64, 1000])
def test_what_a_question_looks_back_at_counts_as_well(
    context: int, tokens: int, blocks: int
) -> None:
    """Guards against answers from positions, before the window's, that no model has learned."""
    policy = fitted(Retrieve(blocks=blocks), context, tokens)
    assert isinstance(policy, Retrieve)
    assert policy.blocks <= blocks
    seen = policy.frames + (1 + policy.blocks) * policy.block
    room = context - 1024 - policy.text
    assert seen * tokens <= max(room, 3 * tokens)
    # Nor much less than it could be; fewer blocks only where none can be smaller.
    assert policy.frames == 256 or (seen + policy.block) * tokens > room
    assert policy.blocks == blocks or policy.block == 1


@pytest.mark.parametrize("frames", [32, 64, 96])
@pytest.mark.parametrize("kind", [Window, Retrieve])
def test_a_window_never_becomes_longer(kind: type[Window], frames: int) -> None:
    """Guards against a window that grows as its blocks become smaller."""
    for context in range(2048, 32_768, 512):
        policy = fitted(kind(frames=frames), context, 196)
        assert isinstance(policy, Window)
        assert policy.frames <= frames


@pytest.mark.parametrize(
    ("places", "beside"),
    [
        (Places.line(196), 0),
        (Places(((0,) * 256, (*range(16),) * 16, (*range(16),) * 16), 16, 4.0), 0),
        (Places(((0,) * 196, (*range(14),) * 14, (*range(14),) * 14), 14), 22),
    ],
    ids=["line", "stretches share a place", "steps share a place"],
)
def test_all_that_a_question_sees_lies_within_the_context(places: Places, beside: int) -> None:
    """Guards against distances beyond the context, however a family lays out its frames."""
    context = 32_768
    tokens = len(places.offsets[0]) + beside
    policy = fitted(Retrieve(), context, tokens)
    assert isinstance(policy, Retrieve)
    step = [*range(1, beside + 1), FRAME]
    back = policy.blocks * places.after(Cursor(), step * policy.block).at
    window = places.after(Cursor(), step * (policy.frames + policy.block)).at
    assert back + window <= context - 1024 - policy.text
