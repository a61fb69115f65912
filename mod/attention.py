"""The attention function behind unmodified transformers layers: ragged, cached, causal.

Many sequences lie flattened in one batch row without padding; each attends to itself and to
its own cache. Registered with transformers' attention interface under ``NAME``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface

from mod.cache import RaggedKVCache

NAME = "longreel_ragged"


@dataclass(frozen=True)
class Spans:
    """How one layer's flattened tokens divide into sequences.

    Attributes:
        lengths: tokens of each sequence in this layer; they sum to the flattened length.
        caches: one cache per sequence, or None when nothing is cached (training).
    """

    lengths: list[int]
    caches: list[RaggedKVCache] | None = None


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
    if spans.caches is None and len(set(spans.lengths)) == 1:
        return _equal_lengths(query, key, value, len(spans.lengths), scaling, dropout), None
    outputs = []
    start = 0
    for i, length in enumerate(spans.lengths):
        part = slice(start, start + length)
        start += length
        q, k, v = query[:, :, part], key[:, :, part], value[:, :, part]
        if spans.caches is not None:
            all_k, all_v = spans.caches[i].append(module.layer_idx, k[0], v[0])
            k, v = all_k[None], all_v[None]
        past = k.shape[2] - length
        mask = None
        if past and length > 1:
            mask = torch.ones(length, k.shape[2], dtype=torch.bool, device=q.device).tril(past)
        outputs.append(
            F.scaled_dot_product_attention(
                q,
                k,
                v,
                attn_mask=mask,
                dropout_p=dropout,
                is_causal=past == 0 and length > 1,
                scale=scaling,
                enable_gqa=q.shape[1] != k.shape[1],
            )
        )
    return torch.cat(outputs, dim=2).transpose(1, 2), None


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
