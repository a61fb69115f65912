"""Which vision tokens of each frame run in a MoD layer, and how strongly they count."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mod.config import Router


@dataclass(frozen=True)
class Routing:
    """The outcome of routing ``frames`` x ``tokens`` vision tokens in one layer.

    Attributes:
        kept: (frames, tokens) bool, exactly ``k`` true in each row.
        score: (frames, tokens), what the tokens of a frame were ranked by.
        weight: (frames, tokens), what multiplies the residual branch of a kept token.
    """

    kept: Tensor
    score: Tensor
    weight: Tensor


class LayerRouter(nn.Module):
    """The LayerExpert of one layer: a vector without bias that scores each vision token.

    Tokens compete within their own frame only, so selection is causal in streaming.

    Args:
        hidden_size: D, the width of the tokens.
        kind: see :class:`mod.config.VideoLLMMoDConfig`.
        layer: index of the layer; seeds the ``random`` baseline.

    Source: arXiv 2408.16730, section 3.2; ``bounded`` from p-MoD (arXiv 2412.04449).
    """

    def __init__(self, hidden_size: int, kind: Router, layer: int) -> None:
        super().__init__()
        self.kind = kind
        self.layer = layer
        if kind in ("learned", "bounded"):
            self.weight = nn.Parameter(torch.zeros(hidden_size))

    def forward(self, x: Tensor, positions: Tensor, k: int, keep_last: bool) -> Routing:
        """Route the frames of ``x``.

        Args:
            x: (frames, tokens, D).
            positions: (frames,) position of each frame's first token, for ``random``.
            k: tokens to keep in each frame, 0 <= k <= tokens.
            keep_last: the last token takes one of the k places whatever its score.
        """
        frames, tokens, _ = x.shape
        if self.kind == "learned":
            score = x @ self.weight
            weight = score
        elif self.kind == "bounded":
            score = x @ self.weight
            weight = 1.0 + 0.2 * torch.tanh(score)
        elif self.kind == "random":
            score = _hash_noise(positions, tokens, self.layer)
            weight = torch.ones_like(score, dtype=x.dtype)
        else:
            score = _spread(tokens, k, x.device).expand(frames, tokens)
            weight = x.new_ones(frames, tokens)
        ranking = score.detach().float()
        first = ranking
        if keep_last:
            first = ranking.clone()
            first[:, -1] = torch.inf
        # A stable sort: equal scores must be resolved alike whatever shares the batch.
        order = torch.sort(first, dim=1, descending=True, stable=True).indices[:, :k]
        kept = torch.zeros(frames, tokens, dtype=torch.bool, device=x.device)
        kept.scatter_(1, order, True)
        return Routing(kept, ranking, weight)


def _spread(tokens: int, k: int, device: torch.device) -> Tensor:
    """Scores that make the k winners lie evenly over the frame, its last token among them."""
    score = torch.zeros(1, tokens, device=device)
    for i in range(k):
        score[0, tokens - 1 - (i * tokens) // k] = 1.0
    return score


def _hash_noise(positions: Tensor, tokens: int, layer: int) -> Tensor:
    """Noise that depends on stream position and layer alone, so that chunking changes nothing."""
    offsets = torch.arange(tokens, device=positions.device)
    seed = (positions[:, None] + offsets[None]) * 1_000_003 + (layer + 1) * 7_919
    for shift, factor in ((13, 0x5BD1E995), (15, 0x27D4EB2F)):
        seed = ((seed ^ (seed >> shift)) * factor) & 0xFFFFFFFF
    return (seed ^ (seed >> 16)).double()
