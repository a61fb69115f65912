"""The cache of one session: tables of pages, ragged over layers, cut back, forked, saved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from mod.config import RoutedConfig
from mod.engine.log import FRAME
from mod.engine.pages import OutOfPagesError, PagePool

#: Tokens of a page; on CUDA large ones, as attention's block tables are made anew each step.
PAGE_SIZE, CUDA_PAGE_SIZE = 32, 128
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class LayerClass:
    """Layers of one device that keep equally many of a frame's tokens, and so hold equally many."""

    layers: tuple[int, ...]
    tokens_per_frame: int
    device: torch.device = _CPU


def layer_classes(
    config: RoutedConfig, devices: Sequence[torch.device] | None = None
) -> list[LayerClass]:
    """The classes of a model's layers, fullest first.

    Args:
        devices: of each layer; None is the CPU for all.
    """
    n_layers = config.get_text_config().num_hidden_layers
    groups: dict[tuple[int, torch.device], list[int]] = {}
    for layer, device in enumerate(devices or [_CPU] * n_layers):
        groups.setdefault((config.tokens_in_layer(layer), device), []).append(layer)
    ordered = sorted(groups.items(), key=lambda group: (-group[0][0], group[1]))
    return [LayerClass(tuple(layers), n, device) for (n, device), layers in ordered]


def rows_of(ids: Sequence[int], kind: LayerClass) -> Tensor:
    """(entries,) how many rows each entry of a log has in the layers of a class."""
    return torch.tensor([kind.tokens_per_frame if i == FRAME else 1 for i in ids], dtype=torch.long)


class Memory:
    """The page pools of one model, one for each class of layers.

    Args:
        capacity_bytes: of all pools together; each gets what equally long streams would fill.
        page_size: tokens of a page; None takes what attention on the device wants.
        device: of all layers, or ``devices`` of each.
    """

    def __init__(
        self,
        config: RoutedConfig,
        capacity_bytes: int,
        *,
        page_size: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
        devices: Sequence[torch.device] | None = None,
    ) -> None:
        text = config.get_text_config()
        head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        heads = text.num_key_value_heads
        devices = devices or [device or _CPU] * text.num_hidden_layers
        on_cuda = devices[0].type == "cuda"
        page_size = page_size or (CUDA_PAGE_SIZE if on_cuda else PAGE_SIZE)
        self.classes = layer_classes(config, devices)
        token_bytes = 2 * heads * head_dim * torch.empty(0, dtype=dtype).element_size()
        frame_bytes = [len(c.layers) * (c.tokens_per_frame + 1) * token_bytes for c in self.classes]
        self.pools = []
        for kind, share in zip(self.classes, frame_bytes, strict=True):
            page_bytes = len(kind.layers) * page_size * token_bytes
            n_pages = max(1, int(capacity_bytes * share / sum(frame_bytes) / page_bytes))
            self.pools.append(
                PagePool(
                    len(kind.layers),
                    n_pages,
                    page_size,
                    heads,
                    head_dim,
                    dtype=dtype,
                    device=kind.device,
                )
            )
        #: Class of each layer, and its number within the class.
        self.place = {
            layer: (c, number)
            for c, kind in enumerate(self.classes)
            for number, layer in enumerate(kind.layers)
        }

    @property
    def used_bytes(self) -> int:
        """Bytes of all pages that somebody holds."""
        return sum(pool.n_used * pool.page_bytes for pool in self.pools)


class PagedCache:
    """Keys and values of one session, in pages of ``memory``.

    Skipped vision tokens have no entry in a MoD layer.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._tables: list[list[int]] = [[] for _ in memory.pools]
        self._lengths = [0] * len(memory.place)

    @property
    def lengths(self) -> list[int]:
        """Tokens held in each layer; a copy, good for a later ``truncate``."""
        return list(self._lengths)

    @property
    def n_bytes(self) -> int:
        """Bytes of the keys and values held, page rounding left out."""
        total = 0
        for layer, length in enumerate(self._lengths):
            pool = self._memory.pools[self._memory.place[layer][0]]
            _, _, heads, dim = pool.keys.shape
            total += 2 * length * heads * dim * pool.keys.element_size()
        return total

    def look(self, layer: int, queries: Tensor) -> None:
        """Nothing: what this cache shows does not depend on queries."""

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add keys and values of shape (heads, tokens, head_dim) to ``layer``.

        Returns:
            All keys and values of the layer, (heads, length, head_dim).

        Raises:
            OutOfPagesError: there is no room; nothing of this layer has changed.
        """
        c, index = self._memory.place[layer]
        pool = self._memory.pools[c]
        start = self._lengths[layer]
        end = start + keys.shape[1]
        self._make_room(c, start, end)
        slots = self._slots(c, start, end)
        pool.keys[index, slots] = keys.transpose(0, 1).to(pool.keys.dtype)
        pool.values[index, slots] = values.transpose(0, 1).to(pool.values.dtype)
        self._lengths[layer] = end
        return self.read(layer)

    def reserve(self, c: int, n: int) -> tuple[list[int], int]:
        """Lengthen all layers of class ``c`` by ``n`` tokens that are written later.

        Returns:
            The pages of the class, and how many tokens it held before.

        Raises:
            OutOfPagesError: there is no room; nothing has changed.
        """
        start = self._class_length(c)
        self._make_room(c, start, start + n)
        for layer in self._memory.classes[c].layers:
            self._lengths[layer] = start + n
        return list(self._tables[c]), start

    def read(self, layer: int) -> tuple[Tensor, Tensor]:
        """All keys and values of ``layer``, (heads, length, head_dim)."""
        c, index = self._memory.place[layer]
        pool = self._memory.pools[c]
        held = self._slots(c, 0, self._lengths[layer])
        return pool.keys[index, held].transpose(0, 1), pool.values[index, held].transpose(0, 1)

    def pages_needed(self, c: int, new_tokens: int) -> int:
        """Pages that appending to the layers of class ``c`` takes, a copied one included."""
        pool, table = self._memory.pools[c], self._tables[c]
        start = self._class_length(c)
        total = -(-(start + new_tokens) // pool.page_size)
        first = start // pool.page_size
        copied = sum(pool.shared(page) for page in table[first : first + 1])
        return max(0, total - len(table)) + copied

    def shared_pages(self, c: int) -> int:
        """Pages of class ``c`` that others hold too, and that do not come free by a cut."""
        return sum(self._memory.pools[c].shared(page) for page in self._tables[c])

    def truncate(self, lengths: list[int]) -> None:
        """Forget everything after ``lengths`` tokens per layer; pages that empty are free.

        Raises:
            ValueError: a layer holds fewer tokens than asked to keep.
        """
        for layer, (have, keep) in enumerate(zip(self._lengths, lengths, strict=True)):
            if not 0 <= keep <= have:
                raise ValueError(f"layer {layer} holds {have} tokens, cannot keep {keep}")
        self._lengths = list(lengths)
        for c, pool in enumerate(self._memory.pools):
            pages = -(-self._class_length(c) // pool.page_size)
            pool.release(self._tables[c][pages:])
            del self._tables[c][pages:]

    def fork(self) -> PagedCache:
        """A cache with the same content that shares all pages until one of the two writes."""
        other = PagedCache(self._memory)
        other._lengths = list(self._lengths)
        for c, pool in enumerate(self._memory.pools):
            pool.retain(self._tables[c])
            other._tables[c] = list(self._tables[c])
        return other

    def release(self) -> None:
        """Give all pages back."""
        self.truncate([0] * len(self._lengths))

    def save(self) -> list[Tensor]:
        """Keys and values per class, (2, layers, length, heads, head_dim), compact copies.

        They lie on the host, and take no memory of the pool's device on the way.
        """
        saved = []
        for c, pool in enumerate(self._memory.pools):
            layers, _, heads, dim = pool.keys.shape
            length = self._class_length(c)
            copies = torch.empty((2, layers, length, heads, dim), dtype=pool.keys.dtype)
            keys, values = copies
            for rows, slots in self._stretches(c, 0, length):
                _copy(pool.keys[:, slots], keys[:, rows])
                _copy(pool.values[:, slots], values[:, rows])
            saved.append(copies)
        return saved

    def rows(self, c: int, rows: Tensor) -> Tensor:
        """A copy of some rows of the layers of class ``c``, where the pool lies.

        Args:
            rows: (n,) numbers of tokens within a layer, on the host.

        Returns:
            (2, layers, n, heads, head_dim), keys and values.
        """
        pool = self._memory.pools[c]
        table = torch.tensor(self._tables[c], dtype=torch.long)
        slots = table[rows // pool.page_size] * pool.page_size + rows % pool.page_size
        slots = slots.to(pool.keys.device)
        return torch.stack([pool.keys[:, slots], pool.values[:, slots]])

    def load(self, saved: Sequence[Tensor]) -> None:
        """Append what ``save`` or ``rows`` returned of each class.

        Raises:
            OutOfPagesError: there is no room; the cache is as it was.
        """
        before = list(self._lengths)
        spans = []
        for c, tensor in enumerate(saved):
            start = self._class_length(c)
            spans.append((start, start + tensor.shape[2]))
        try:
            for c, (start, end) in enumerate(spans):
                self._make_room(c, start, end)
        except OutOfPagesError:
            self.truncate(before)
            raise
        for c, (pool, tensor) in enumerate(zip(self._memory.pools, saved, strict=True)):
            keys, values = tensor
            for rows, slots in self._stretches(c, *spans[c]):
                _copy(keys[:, rows], pool.keys[:, slots])
                _copy(values[:, rows], pool.values[:, slots])
            for layer in self._memory.classes[c].layers:
                self._lengths[layer] = spans[c][1]

    def _class_length(self, c: int) -> int:
        return max(self._lengths[layer] for layer in self._memory.classes[c].layers)

    def _make_room(self, c: int, start: int, end: int) -> None:
        pool, table = self._memory.pools[c], self._tables[c]
        first = start // pool.page_size
        for place in range(first, min(len(table), -(-end // pool.page_size))):
            page = table[place]
            if pool.shared(page):
                table[place] = pool.take(after=table[place - 1] if place else None)
                pool.copy(page, table[place])
                pool.release([page])
        taken: list[int] = []
        try:
            while (len(table) + len(taken)) * pool.page_size < end:
                last = taken[-1] if taken else (table[-1] if table else None)
                taken.append(pool.take(after=last))
        except OutOfPagesError:
            pool.release(taken)
            raise
        table.extend(taken)

    def _stretches(self, c: int, start: int, end: int) -> list[tuple[slice, slice]]:
        """Tokens ``[start, end)`` by stretches of consecutive pages: which of them, and where they
        lie.
        """
        size, table = self._memory.pools[c].page_size, self._tables[c]
        stretches = []
        here = start
        while here < end:
            first = last = here // size
            while (last + 1) * size < end and table[last + 1] == table[last] + 1:
                last += 1
            stop = min(end, (last + 1) * size)
            ahead = (table[first] - first) * size
            stretches.append((slice(here - start, stop - start), slice(ahead + here, ahead + stop)))
            here = stop
        return stretches

    def _slots(self, c: int, start: int, end: int) -> slice | Tensor:
        """Where tokens ``[start, end)`` lie: a slice when their pages are consecutive."""
        pool, table = self._memory.pools[c], self._tables[c]
        size = pool.page_size
        first, last = start // size, max(start, end - 1) // size
        pages = table[first : last + 1]
        if not pages or all(b == a + 1 for a, b in pairwise(pages)):
            base = (pages[0] - first) * size if pages else 0
            return slice(base + start, base + end)
        starts = torch.tensor(pages, device=pool.keys.device) * size
        slots = (starts[:, None] + torch.arange(size, device=starts.device)).flatten()
        return slots[start - first * size : end - first * size]


def _copy(source: Tensor, target: Tensor) -> None:
    """Copy some rows of all layers, (layers, rows, heads, head_dim)."""
    if source.device == target.device:
        target.copy_(source)
        return
    # Between devices what is not contiguous is copied on the GPU as well, as a whole.
    for layer, place in zip(source, target, strict=True):
        place.copy_(layer)
