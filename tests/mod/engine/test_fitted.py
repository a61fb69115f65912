"""Windows that fit a model's context: none is longer than what the model was made for.

Guards against a window that runs a model beyond its context, and one that is cut for nothing.
"""

from __future__ import annotations

import pytest

from mod.engine.policy import Full, Retrieve, Window, fitted


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
    assert fitted(Retrieve(), 8192, 108) == Retrieve(frames=48, block=8)
