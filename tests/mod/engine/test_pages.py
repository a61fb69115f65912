"""Pages are shared, copied on writing, given back; the paged cache equals a plain one.

Guards against pages that leak, that two sessions write, or that a failed step keeps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from mod.engine.cache import Memory, PagedCache, layer_classes
from mod.engine.pages import OutOfPagesError
from tests.mod.plain import PlainCache
from tests.mod.small import small_config

CONFIG = small_config(router="bounded")  # layers 1 and 3 keep 2 of 10 tokens
HEADS, DIM = 2, 8


def _memory(pages: int = 40, page_size: int = 4, device: torch.device | None = None) -> Memory:
    # Two classes of two layers; each page holds 4 tokens of 2 layers, keys and values.
    memory = Memory(CONFIG, 1, page_size=page_size)
    page_bytes = memory.pools[0].page_bytes
    return Memory(CONFIG, pages * page_bytes, page_size=page_size, device=device)


def test_layers_with_equally_many_tokens_form_a_class() -> None:
    kinds = layer_classes(CONFIG)
    assert [(k.layers, k.tokens_per_frame) for k in kinds] == [((0, 2), 10), ((1, 3), 2)]


def _fill(cache: PagedCache | PlainCache, counts: list[int], seed: int) -> list[torch.Tensor]:
    """Append random tokens to all layers; returns what the cache then holds of each."""
    generator = torch.Generator().manual_seed(seed)
    held = []
    for layer in range(4):
        n = counts[0] if layer in (0, 2) else counts[1]
        keys = torch.randn(HEADS, n, DIM, generator=generator)
        k, v = cache.append(layer, keys, -keys)
        assert torch.equal(k, -v)
        held.append(k.clone())
    return held


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 3), st.integers(1, 9), st.integers(1, 4)),
        st.tuples(st.just("cut"), st.integers(0, 3), st.integers(0, 9), st.integers(0, 4)),
        st.tuples(st.just("fork"), st.integers(0, 3), st.just(0), st.just(0)),
        st.tuples(st.just("close"), st.integers(0, 3), st.just(0), st.just(0)),
        st.tuples(st.just("move"), st.integers(0, 3), st.just(0), st.just(0)),
    ),
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(OPERATIONS)
def test_paged_caches_equal_plain_ones_whatever_happens(
    operations: list[tuple[str, int, int, int]],
) -> None:
    """Guards copy-on-write, rollback, save and load over several sessions that share pages."""
    memory = _memory(pages=400)
    paged: list[PagedCache] = [PagedCache(memory)]
    plain: list[PlainCache] = [PlainCache(4)]
    for number, (kind, which, a, b) in enumerate(operations):
        i = which % len(paged)
        if kind == "append":
            ours, theirs = (_fill(cache, [a, b], number) for cache in (paged[i], plain[i]))
            assert all(torch.equal(x, y) for x, y in zip(ours, theirs, strict=True))
        elif kind == "cut":
            lengths = plain[i].lengths
            cut = [max(0, n - (a if layer in (0, 2) else b)) for layer, n in enumerate(lengths)]
            paged[i].truncate(cut)
            plain[i].truncate(cut)
        elif kind == "fork":
            paged.append(paged[i].fork())
            plain.append(_copied(plain[i]))
        elif kind == "move":
            saved = paged[i].save()
            paged[i].release()
            paged[i] = PagedCache(memory)
            paged[i].load(saved)
        elif len(paged) > 1:
            paged.pop(i).release()
            plain.pop(i)
        assert [c.lengths for c in paged] == [c.lengths for c in plain]
        assert [c.n_bytes for c in paged] == [c.n_bytes for c in plain]
    for number, (cache, reference) in enumerate(zip(paged, plain, strict=True)):
        ours, theirs = (_fill(c, [1, 1], number) for c in (cache, reference))
        assert all(torch.equal(x, y) for x, y in zip(ours, theirs, strict=True))
        cache.release()
    assert [pool.n_used for pool in memory.pools] == [0, 0]


def _copied(cache: PlainCache) -> PlainCache:
    other = PlainCache(4)
    empty = torch.empty(HEADS, 0, DIM)
    for layer in range(4):
        k, v = cache.append(layer, empty, empty)
        other.append(layer, k, v)
    return other


def test_a_fork_copies_no_page_until_one_writes() -> None:
    memory = _memory()
    cache = PagedCache(memory)
    _fill(cache, [10, 3], 0)
    used = [pool.n_used for pool in memory.pools]
    other = cache.fork()
    assert [pool.n_used for pool in memory.pools] == used
    assert [other.pages_needed(c, 1) for c in (0, 1)] == [1, 1]
    _fill(other, [1, 1], 1)
    assert [pool.n_used for pool in memory.pools] == [used[0] + 1, used[1] + 1]
    assert cache.lengths == [10, 3, 10, 3]


def test_a_full_pool_refuses_and_changes_nothing() -> None:
    memory = _memory(pages=6)
    cache = PagedCache(memory)
    _fill(cache, [4, 1], 0)
    before = cache.lengths, [pool.n_used for pool in memory.pools]
    with pytest.raises(OutOfPagesError):
        cache.append(0, torch.zeros(HEADS, 1000, DIM), torch.zeros(HEADS, 1000, DIM))
    assert (cache.lengths, [pool.n_used for pool in memory.pools]) == before


class _Crossing(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what is made on the device ``meta``, and what is copied to it or from it.

    Nothing has content there, so that copies are not made.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.made = self.copied = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.aten.copy_.default:
            target, source = args[:2]
            assert target.device != source.device
            # Otherwise CUDA makes a contiguous copy on the device first.
            assert target.is_contiguous()
            assert source.is_contiguous()
            self.copied += source.numel()
            return target
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and out.is_meta and not func.is_view:
            self.made += out.numel()
        return out


@pytest.mark.parametrize("scattered", [False, True])
def test_a_cache_leaves_its_device_and_comes_back_without_room_there(scattered: bool) -> None:
    """Guards against an eviction that runs a GPU out of memory: it is called for want of that."""
    memory = _memory(pages=400, device=torch.device("meta"))
    cache = PagedCache(memory)
    for c, pool in enumerate(memory.pools):
        if scattered:
            others = [pool.take() for _ in range(pool.n_free)]
            pool.release([page for page in others if page % 3])
        cache.reserve(c, 118)
        assert isinstance(cache._slots(c, 0, 118), slice) != scattered
    with _Crossing() as crossing:
        saved = cache.save()
    held = sum(part.numel() for part in saved)
    assert [part.device.type for part in saved] == ["cpu", "cpu"]
    assert [part.shape[2] for part in saved] == [118, 118]
    assert (crossing.made, crossing.copied) == (0, held)
    cache.release()
    with _Crossing() as crossing:
        cache.load(saved)
    assert (crossing.made, crossing.copied) == (0, held)


def test_streams_that_grow_side_by_side_are_read_without_copies() -> None:
    """Guards the fast path: consecutive pages are a view of the pool."""
    memory = _memory(pages=200)
    caches = [PagedCache(memory) for _ in range(3)]
    for round_ in range(6):
        for number, cache in enumerate(caches):
            _fill(cache, [6, 3], 10 * round_ + number)
    base = memory.pools[0].keys.untyped_storage().data_ptr()
    for cache in caches:
        k, _ = cache.append(0, torch.zeros(HEADS, 1, DIM), torch.zeros(HEADS, 1, DIM))
        assert k.untyped_storage().data_ptr() == base
