"""Attention of a whole step over pages: one call a layer, without gathering caches.

Keys and values go to their pages by one indexed write; then one call reads them through block
tables that are made once a step for each class of layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Protocol

import torch
from torch import Tensor

from mod.attention import causal_attention
from mod.engine.cache import Memory, PagedCache
from mod.engine.pages import PAGE_MULTIPLE, PagePool
from mod.engine.recall import Recall
from mod.engine.tables import Tables, tables

_DTYPES = (torch.float16, torch.bfloat16)


def on_device(
    values: Sequence[int] | Sequence[Sequence[int]], dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Host numbers as a tensor on the device; nothing is waited for."""
    made = torch.tensor(values, dtype=dtype)
    if device.type == "cuda":
        made = made.pin_memory()
    return made.to(device, non_blocking=True)


@dataclass(frozen=True)
class DeviceTables:
    """``Tables`` on the device, int32 as kernels want them; slots int64.

    Attributes:
        max_new, max_used: bounds that the kernel plans with; host numbers.
    """

    slots: Tensor
    starts: Tensor
    used: Tensor
    pages: Tensor
    max_new: int
    max_used: int

    @classmethod
    def of(cls, host: Tables, page_size: int, device: torch.device) -> DeviceTables:
        """Copy to the device."""
        return cls(
            on_device(host.slots, torch.int64, device),
            on_device(host.starts, torch.int32, device),
            on_device(host.used, torch.int32, device),
            on_device(host.pages, torch.int32, device),
            host.longest_new,
            len(host.pages[0]) * page_size,
        )


class Kernel(Protocol):
    """Causal attention of new tokens, the last of their sequences, over pages."""

    def __call__(
        self, query: Tensor, keys: Tensor, values: Tensor, step: DeviceTables, scaling: float
    ) -> Tensor:
        """Attend.

        Args:
            query: (tokens, heads, head_dim).
            keys, values: (pages, page_size, kv_heads, head_dim).

        Returns:
            (tokens, heads, head_dim).
        """


def triton_kernel(
    query: Tensor, keys: Tensor, values: Tensor, step: DeviceTables, scaling: float
) -> Tensor:
    """Our own kernel, which any release of torch on CUDA can run."""
    # torch for CPUs comes without Triton.
    from mod.engine.kernels import paged_attention

    with torch.cuda.device_of(query):  # type: ignore[no-untyped-call]
        out: Tensor = paged_attention(
            query,
            keys,
            values,
            step.starts,
            step.used,
            step.pages,
            max_new=step.max_new,
            max_used=step.max_used,
            scaling=scaling,
        )
    return out


def kernel_for(memory: Memory, n_heads: int) -> Kernel | None:
    """The kernel for the pools' device and dtype, compiled; None means SDPA, session by session.

    Args:
        n_heads: query heads of the model.
    """
    pool = memory.pools[0]
    if pool.keys.device.type != "cuda" or pool.keys.dtype not in _DTYPES:
        return None
    if any(each.page_size % PAGE_MULTIPLE for each in memory.pools) or not find_spec("triton"):
        return None
    from mod.engine.kernels import warm_up

    for each in memory.pools:
        warm_up(*_pages(each, 0), n_heads)
    return triton_kernel


class PagedStep:
    """One step's attention over pages; stands behind ``mod.attention``.

    Making one takes the pages that the step's tokens need and lengthens the caches; a step that
    fails is undone by cutting them back.

    Args:
        caches: of each sequence, its own or what an answer looks back at.
        new: per class of layers, the new tokens of each sequence.

    Raises:
        OutOfPagesError: there is no room.
    """

    def __init__(
        self,
        memory: Memory,
        kernel: Kernel,
        caches: Sequence[PagedCache | Recall],
        new: Sequence[Sequence[int]],
    ) -> None:
        self._memory, self._kernel = memory, kernel
        self._recalls = {i: c for i, c in enumerate(caches) if isinstance(c, Recall)}
        mains = [c.main if isinstance(c, Recall) else c for c in caches]
        self.host = []
        for c, counts in enumerate(new):
            spans = [cache.reserve(c, n) for cache, n in zip(mains, counts, strict=True)]
            pages, before = [span[0] for span in spans], [span[1] for span in spans]
            self.host.append(tables(pages, before, counts, memory.pools[c].page_size))
        self._steps: list[DeviceTables] | None = None

    @property
    def plain(self) -> bool:
        """Whether nobody in the step looks back at retrieved blocks."""
        return not self._recalls

    @classmethod
    def over(cls, memory: Memory, kernel: Kernel, steps: Sequence[DeviceTables]) -> PagedStep:
        """A step whose tables lie on the device already."""
        made = cls(memory, kernel, [], [])
        made._steps = list(steps)
        return made

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float
    ) -> Tensor:
        """Write ``key`` and ``value`` to their pages and attend.

        Args:
            query: (heads, tokens, head_dim), RoPE applied.
            key, value: (kv_heads, tokens, head_dim).

        Returns:
            (tokens, heads, head_dim).
        """
        if self._steps is None:
            self._steps = [
                DeviceTables.of(host, pool.page_size, pool.keys.device)
                for host, pool in zip(self.host, self._memory.pools, strict=True)
            ]
        c, index = self._memory.place[layer]
        pool, step = self._memory.pools[c], self._steps[c]
        for name, new in (("keys", key), ("values", value)):
            held: Tensor = getattr(pool, name)
            held[index].index_copy_(0, step.slots, new.transpose(0, 1).to(held.dtype))
        rows = query.transpose(0, 1).contiguous()
        out = self._kernel(rows, *_pages(pool, index), step, scaling)
        for i, recall in self._recalls.items():
            start, end = self.host[c].starts[i : i + 2]
            mine = query[:, start:end]
            recall.look(layer, mine)
            keys, values = recall.read(layer)
            seen = causal_attention(mine[None], keys[None], values[None], scaling)
            out[start:end] = seen[0].transpose(0, 1)
        return out


def _pages(pool: PagePool, index: int) -> tuple[Tensor, Tensor]:
    """A layer's keys and values as (pages, page_size, kv_heads, head_dim) views."""
    shape = (-1, pool.page_size, *pool.keys.shape[2:])
    return pool.keys[index].view(shape), pool.values[index].view(shape)
