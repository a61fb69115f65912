"""Attention of a whole step over pages: one call a layer, without gathering caches.

Keys and values go to their pages by one indexed write; then one variable-length call reads them
through block tables that are made once a step for each class of layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

from mod.attention import causal_attention
from mod.engine.cache import CUDA_PAGE_SIZE, Memory, PagedCache
from mod.engine.pages import PagePool
from mod.engine.recall import Recall
from mod.engine.tables import Tables, tables

_DTYPES = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class DeviceTables:
    """``Tables`` on the device, int32 as kernels want them; slots int64.

    Attributes:
        max_new, max_used: bounds that the kernel plans with; host numbers.
        total: tokens of all sequences together, a host number.
        page_size: tokens of a page.
    """

    slots: Tensor
    starts: Tensor
    used: Tensor
    pages: Tensor
    max_new: int
    max_used: int
    total: int
    page_size: int

    @classmethod
    def of(cls, host: Tables, page_size: int, device: torch.device) -> DeviceTables:
        """Copy to the device; nothing is waited for."""

        def there(values: Sequence[int] | Sequence[Sequence[int]], dtype: torch.dtype) -> Tensor:
            made = torch.tensor(values, dtype=dtype)
            if device.type == "cuda":
                made = made.pin_memory()
            return made.to(device, non_blocking=True)

        return cls(
            there(host.slots, torch.int64),
            there(host.starts, torch.int32),
            there(host.used, torch.int32),
            there(host.pages, torch.int32),
            host.longest_new,
            len(host.pages[0]) * page_size,
            sum(host.used),
            page_size,
        )

    @cached_property
    def rows(self) -> tuple[Tensor, Tensor]:
        """Places in the pool of all tokens of all sequences, and where each sequence starts.

        (total,) int64 and (sequences + 1,) int32, made on the device without waiting for it.
        """
        used = self.used.long()
        ends = torch.cumsum(used, 0)
        numbers = torch.arange(len(used), device=used.device)
        owner = torch.repeat_interleave(numbers, used, output_size=self.total)
        inside = torch.arange(self.total, device=used.device) - (ends - used)[owner]
        page = self.pages[owner, inside // self.page_size].long()
        return page * self.page_size + inside % self.page_size, F.pad(ends, (1, 0)).int()


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


def varlen_kernel(
    query: Tensor, keys: Tensor, values: Tensor, step: DeviceTables, scaling: float
) -> Tensor:
    """torch's variable-length attention through its block table."""
    out = varlen_attn(
        query,
        keys,
        values,
        step.starts,
        None,
        step.max_new,
        step.max_used,
        scale=scaling,
        window_size=(-1, 0),
        enable_gqa=query.shape[1] != keys.shape[2],
        seqused_k=step.used,
        block_table=step.pages,
    )
    assert isinstance(out, Tensor)
    return out


class Ragged(Protocol):
    """Causal attention over sequences that lie one after the other, as ``varlen_attn`` is called.

    Queries are the last tokens of their sequences.
    """

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        cu_seq_q: Tensor,
        cu_seq_k: Tensor,
        max_q: int,
        max_k: int,
        *,
        scale: float,
        window_size: tuple[int, int],
        enable_gqa: bool,
    ) -> Any:
        """(tokens, heads, head_dim)."""


class GatheredKernel:
    """One gather and one variable-length call a layer, where no kernel reads block tables.

    It reads and writes every cache of the step once more than the paged kernel, but launches no
    call per session. Its sizes change from step to step, so it is not recorded.
    """

    def __init__(self, ragged: Ragged = varlen_attn) -> None:
        self._ragged = ragged

    def __call__(
        self, query: Tensor, keys: Tensor, values: Tensor, step: DeviceTables, scaling: float
    ) -> Tensor:
        """Attend; see ``Kernel``."""
        rows, starts = step.rows
        out: Tensor = self._ragged(
            query,
            keys.flatten(0, 1).index_select(0, rows),
            values.flatten(0, 1).index_select(0, rows),
            step.starts,
            starts,
            step.max_new,
            step.max_used,
            scale=scaling,
            window_size=(-1, 0),
            enable_gqa=query.shape[1] != keys.shape[2],
        )
        return out


def kernel_for(memory: Memory) -> Kernel | None:
    """The best kernel for the pools' device and dtype; None means SDPA, session by session.

    Which of torch's implementations reads block tables differs between releases and cards
    (``torch.nn.attention.activate_flash_attention_impl`` chooses among those installed), and one
    that does not says so only when called: each is tried once on a pool's first page.
    """
    pool = memory.pools[0]
    head_dim = pool.keys.shape[-1]
    if pool.keys.device.type != "cuda" or pool.keys.dtype not in _DTYPES or head_dim % 8:
        return None
    query = pool.keys[0, :1]
    step = DeviceTables.of(tables([[0]], [0], [1], pool.page_size), pool.page_size, query.device)
    kernels: list[Kernel] = [GatheredKernel()]
    if all(each.page_size % CUDA_PAGE_SIZE == 0 for each in memory.pools):
        kernels.insert(0, varlen_kernel)
    for kernel in kernels:
        try:
            kernel(query, *_pages(pool, 0), step, 1.0)
        except (RuntimeError, ValueError, TypeError, NotImplementedError):
            continue
        return kernel
    return None


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
            device = self._memory.pools[0].keys.device
            self._steps = [
                DeviceTables.of(host, pool.page_size, device)
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
