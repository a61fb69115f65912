"""The ragged cache: what goes in comes out, and a cut back forgets exactly the rest."""

from __future__ import annotations

import pytest
import torch

from mod.cache import RaggedKVCache


def test_appending_piecewise_equals_appending_at_once() -> None:
    """Guards against growth losing or moving what was there."""
    keys = torch.randn(2, 300, 8)
    cache = RaggedKVCache(1)
    done = 0
    for size in (1, 63, 1, 1, 150, 84):
        part = keys[:, done : done + size]
        held, values = cache.append(0, part, -part)
        done += size
        assert torch.equal(held, keys[:, :done])
        assert torch.equal(values, -keys[:, :done])
    assert cache.lengths == [300]


def test_truncate_then_append_replaces_the_tail() -> None:
    cache = RaggedKVCache(2)
    first, second = torch.randn(1, 10, 4), torch.randn(1, 5, 4)
    cache.append(0, first, first)
    cache.append(1, first[:, :3], first[:, :3])
    cache.truncate([6, 2])
    held, _ = cache.append(0, second, second)
    assert torch.equal(held, torch.cat([first[:, :6], second], dim=1))
    assert cache.lengths == [11, 2]
    assert cache.n_bytes == 2 * (11 + 2) * 4 * 4


@pytest.mark.parametrize("lengths", [[11], [-1]])
def test_truncate_refuses_what_is_not_there(lengths: list[int]) -> None:
    cache = RaggedKVCache(1)
    cache.append(0, torch.zeros(1, 10, 2), torch.zeros(1, 10, 2))
    with pytest.raises(ValueError, match="layer 0 holds 10"):
        cache.truncate(lengths)
