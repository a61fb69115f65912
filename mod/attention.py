"""The attention function behind unmodified transformers layers: ragged, cached, causal.

Many sequences lie flattened in one batch row without padding; each attends to itself and to
its own cache. Registered with transformers' attention interface under ``NAME``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface

NAME = "longreel_ragged"
#: What ``scaled_dot_product_attention`` runs on a CPU; it alone tells the sums of scores as well.
_FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
#: In half precision, parts would be rounded before they are put together.
_FULL = (torch.float32, torch.float64)
#: Tokens before the new ones from which on it is quicker to do without a mask.
_LONG_PAST = 512


class KVCache(Protocol):
    """What the attention function needs of a session's cache."""

    def look(self, layer: int, queries: Tensor) -> None:
        """See ``queries`` (heads, tokens, head_dim) of a layer just before its ``append``."""

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add keys and values (heads, tokens, head_dim) to ``layer``; all that it then shows."""


class Paged(Protocol):
    """A step whose caches lie in pages that one call of a kernel reads."""

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float
    ) -> Tensor:
        """Append to all caches and attend.

        Args:
            query: (heads, tokens, head_dim), RoPE applied.
            key, value: (kv_heads, tokens, head_dim).

        Returns:
            (tokens, heads, head_dim).
        """


@dataclass(frozen=True)
class Spans:
    """How one layer's flattened tokens divide into sequences.

    Attributes:
        lengths: tokens of each sequence in this layer; they sum to the flattened length.
        caches: one cache per sequence, or None when nothing is cached (training).
        paged: takes the place of both where caches lie in pages.
    """

    lengths: list[int]
    caches: Sequence[KVCache] | None = None
    paged: Paged | None = None


def ragged_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    *,
    spans: Spans,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention per sequence.

    Args:
        query: (1, heads, tokens, head_dim), RoPE applied.
        key, value: (1, kv_heads, tokens, head_dim); heads must be a multiple of kv_heads.

    Returns:
        (1, tokens, heads, head_dim) and None for the weights.
    """
    if spans.paged is not None:
        out = spans.paged.attend(module.layer_idx, query[0], key[0], value[0], scaling)
        return out[None], None
    if spans.caches is None and len(set(spans.lengths)) == 1:
        return _equal_lengths(query, key, value, len(spans.lengths), scaling, dropout), None
    outputs = []
    start = 0
    for i, length in enumerate(spans.lengths):
        part = slice(start, start + length)
        start += length
        q, k, v = query[:, :, part], key[:, :, part], value[:, :, part]
        if spans.caches is not None:
            cache = spans.caches[i]
            cache.look(module.layer_idx, q[0])
            all_k, all_v = cache.append(module.layer_idx, k[0], v[0])
            k, v = all_k[None], all_v[None]
        outputs.append(causal_attention(q, k, v, scaling, dropout))
    return torch.cat(outputs, dim=2).transpose(1, 2), None


def causal_attention(
    query: Tensor, key: Tensor, value: Tensor, scaling: float, dropout: float = 0.0
) -> Tensor:
    """Attention of a sequence's last tokens over all of it.

    Args:
        query: (1, heads, tokens, head_dim).
        key, value: (1, kv_heads, length, head_dim), length at least tokens.

    Returns:
        (1, heads, tokens, head_dim).
    """
    length = query.shape[2]
    past = key.shape[2] - length
    mask = None
    on_cpu = query.device.type == "cpu" and query.dtype in _FULL
    if on_cpu and length and past >= _LONG_PAST and not dropout and not torch.is_grad_enabled():
        if length == 1:
            return _over_all(query, key, value, scaling)[0]
        return _past_and_new(query, key, value, scaling)
    if past and length > 1:
        mask = torch.ones(length, key.shape[2], dtype=torch.bool, device=query.device).tril(past)
    return F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        dropout_p=dropout,
        is_causal=past == 0 and length > 1,
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )


def _past_and_new(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """``causal_attention`` without a mask, which costs a CPU more than what it leaves out: all of
    the past, and causally what is new, weighted by what either part's scores sum up to.
    """
    past = key.shape[2] - query.shape[2]
    of_past, past_sum = _over_all(query, key[:, :, :past], value[:, :, :past], scaling)
    of_new, new_sum = _FLASH(query, key[:, :, past:], value[:, :, past:], 0.0, True, scale=scaling)
    share = torch.sigmoid(past_sum - new_sum)[..., None]
    return torch.lerp(of_new, of_past, share)


def _over_all(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
    """Attention of every query to every key.

    Returns:
        (1, heads, tokens, head_dim), and of each the logarithm of the sum of its scores'
        exponentials, (1, heads, tokens).
    """
    _, heads, tokens, dim = query.shape
    if torch.get_num_threads() <= key.shape[1]:
        # Keys are read once for all heads that share them; more threads divide those instead.
        query = query.reshape(1, key.shape[1], -1, dim)
    out, log_sum = _FLASH(query, key, value, 0.0, False, scale=scaling)
    return out.reshape(1, heads, tokens, dim), log_sum.reshape(1, heads, tokens)


def _equal_lengths(
    query: Tensor, key: Tensor, value: Tensor, n: int, scaling: float, dropout: float
) -> Tensor:
    """One batched call for sequences of one length, without a cache."""

    def rows(x: Tensor) -> Tensor:
        _, heads, tokens, dim = x.shape
        return x.view(heads, n, tokens // n, dim).transpose(0, 1)

    out = F.scaled_dot_product_attention(
        rows(query),
        rows(key),
        rows(value),
        dropout_p=dropout,
        is_causal=True,
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return out.transpose(1, 2).reshape(1, query.shape[2], query.shape[1], query.shape[3])


AttentionInterface.register(NAME, ragged_attention)
