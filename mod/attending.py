"""Which of a frame's vision tokens its last token attends to, from a layer's inputs alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def attended(layer: Any, tokens: Tensor) -> Tensor:
    """Attention of each frame's last token over the frame, the mean of its heads.

    The layer's own queries and keys without positions, of one query a frame: what is looked for
    decides, not how near it lies, and neither chunks nor other frames matter. Keys of all tokens
    cost a few percent of the layer where heads share them.

    Args:
        layer: a decoder layer with ``input_layernorm``, and ``self_attn`` with ``q_proj``,
            ``k_proj`` and, if it has them, ``q_norm`` and ``k_norm``.
        tokens: (frames, tokens, D), as they enter the layer.

    Returns:
        (frames, tokens) float32; rows sum to 1.

    Raises:
        ValueError: the layer is built otherwise.

    Source: FastV (arXiv 2403.06764) ranks by what the last token attends to; here it does so
    within its own frame, so that a stream's past needs no second look.
    """
    attention: Any = getattr(layer, "self_attn", None)
    if not (hasattr(layer, "input_layernorm") and hasattr(attention, "q_proj")):
        raise ValueError(
            f"router 'attention' cannot read the queries of a {type(layer).__name__}; "
            "choose another router"
        )
    n_frames, n, _ = tokens.shape
    normed = layer.input_layernorm(tokens)
    dim = attention.head_dim
    query = attention.q_proj(normed[:, -1]).view(n_frames, -1, dim)
    keys = attention.k_proj(normed).view(n_frames, n, -1, dim)
    if hasattr(attention, "q_norm"):
        query, keys = attention.q_norm(query), attention.k_norm(keys)
    grouped = query.view(n_frames, keys.shape[2], -1, dim)
    scores = torch.einsum("fgqd,fngd->fgqn", grouped.float(), keys.float())
    return (scores * attention.scaling).softmax(-1).mean((1, 2))
