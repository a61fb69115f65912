"""The ragged KV cache of one session: each layer holds only the tokens that ran in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor


class KVCache(Protocol):
    """What the attention function needs of a session's cache."""

    def look(self, layer: int, queries: Tensor) -> None:
        """See ``queries`` (heads, tokens, head_dim) of a layer just before its ``append``."""

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add keys and values (heads, tokens, head_dim) to ``layer``; all that it then shows."""


def check_cut(have: Sequence[int], keep: Sequence[int]) -> None:
    """Refuse to cut layers that hold ``have`` tokens back to ``keep``.

    Raises:
        ValueError: a layer holds fewer tokens than asked to keep.
    """
    for layer, (held, kept) in enumerate(zip(have, keep, strict=True)):
        if not 0 <= kept <= held:
            raise ValueError(f"layer {layer} holds {held} tokens, cannot keep {kept}")


class RaggedKVCache:
    """Keys and values per layer, of different lengths, that can be cut back to a commit.

    Skipped vision tokens have no entry in a MoD layer. Storage doubles when full, so that
    appending costs amortised constant time.
    """

    def __init__(self, n_layers: int) -> None:
        self._keys: list[Tensor | None] = [None] * n_layers
        self._values: list[Tensor | None] = [None] * n_layers
        self._lengths = [0] * n_layers

    @property
    def lengths(self) -> list[int]:
        """Tokens held in each layer; a copy, good for a later ``truncate``."""
        return list(self._lengths)

    def look(self, layer: int, queries: Tensor) -> None:
        """Nothing: what this cache shows does not depend on queries."""

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add ``keys`` and ``values`` of shape (heads, tokens, head_dim) to ``layer``.

        Returns:
            All keys and values of the layer, views of shape (heads, length, head_dim).
        """
        start = self._lengths[layer]
        end = start + keys.shape[1]
        self._keys[layer] = k = _with_room(self._keys[layer], keys, start, end)
        self._values[layer] = v = _with_room(self._values[layer], values, start, end)
        k[:, start:end] = keys
        v[:, start:end] = values
        self._lengths[layer] = end
        return k[:, :end], v[:, :end]

    def truncate(self, lengths: list[int]) -> None:
        """Forget everything after ``lengths`` tokens per layer.

        Raises:
            ValueError: a layer holds fewer tokens than asked to keep.
        """
        check_cut(self._lengths, lengths)
        self._lengths = list(lengths)

    @property
    def n_bytes(self) -> int:
        """Bytes of the keys and values held, spare room left out."""
        total = 0
        for k, length in zip(self._keys, self._lengths, strict=True):
            if k is not None:
                total += 2 * k.shape[0] * length * k.shape[2] * k.element_size()
        return total


def _with_room(buffer: Tensor | None, like: Tensor, used: int, needed: int) -> Tensor:
    if buffer is not None and buffer.shape[1] >= needed:
        return buffer
    capacity = max(needed, 64) if buffer is None else max(needed, 2 * buffer.shape[1])
    grown = like.new_empty(like.shape[0], capacity, like.shape[2])
    if buffer is not None:
        grown[:, :used] = buffer[:, :used]
    return grown
