"""Which vision tokens of each frame run in a MoD layer, and how strongly they count."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mod.routers import TRAINED, Router

#: Difference of change (0-2) that chance outweighs at most, another in each layer and frame. What
#: stands still is seen from time to time as well, and layers do not all see the same: of a model
#: that knows nothing of being routed this saves a sixth of what skipping costs.
SPREAD = 0.3


@dataclass(frozen=True)
class Routing:
    """The outcome of routing ``frames`` x ``tokens`` vision tokens in one layer.

    Attributes:
        kept: (frames, tokens) bool, exactly ``k`` true in each row.
        score: (frames, tokens), what the tokens of a frame were ranked by.
    """

    kept: Tensor
    score: Tensor


class LayerRouter(nn.Module):
    """Scores the vision tokens of one layer; the LayerExpert does so by a vector without bias.

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
        if kind in TRAINED:
            self.weight = nn.Parameter(torch.zeros(hidden_size))

    def weigh(self, x: Tensor) -> Tensor:
        """What multiplies the residual branch of each of the kept tokens ``x`` (tokens, D)."""
        if self.kind == "learned":
            return x @ self.weight
        if self.kind == "bounded":
            return 1.0 + 0.2 * torch.tanh(x @ self.weight)
        return x.new_ones(len(x))

    @torch.no_grad()
    def forward(
        self,
        x: Tensor,
        positions: Tensor,
        k: int,
        keep_last: bool,
        given: Tensor | None = None,
    ) -> Routing:
        """Route the frames of ``x``; gradients take the way of ``weigh``, through what is kept.

        Args:
            x: (frames, tokens, D).
            positions: (frames,) position of each frame's first token, for chance.
            k: tokens to keep in each frame, 0 <= k <= tokens.
            keep_last: the last token takes one of the k places whatever its score.
            given: (frames, tokens) what ``redundancy`` and ``attention`` rank by:
                :func:`mod.change.change`, :func:`mod.attending.attended`.
        """
        frames, tokens, _ = x.shape
        if self.kind in ("learned", "bounded"):
            score = x @ self.weight
        elif self.kind == "random":
            score = _hash_noise(positions, tokens, self.layer)
        else:
            score = self._untrained(x, positions, k, given)
        ranking = score.float()
        first = ranking
        if keep_last:
            first = ranking.clone()
            first[:, -1] = torch.inf
        # A stable sort: equal scores must be resolved alike whatever shares the batch.
        order = torch.sort(first, dim=1, descending=True, stable=True).indices[:, :k]
        kept = torch.zeros(frames, tokens, dtype=torch.bool, device=x.device)
        kept.scatter_(1, order, True)
        return Routing(kept, ranking)

    def _untrained(self, x: Tensor, positions: Tensor, k: int, given: Tensor | None) -> Tensor:
        """(frames, tokens) scores of the kinds without weights; all but ``random``."""
        frames, tokens, _ = x.shape
        if self.kind == "norm":
            return x.float().norm(dim=-1)
        if self.kind not in ("redundancy", "attention"):
            return _spread(tokens, k, x.device).expand(frames, tokens)
        if given is None:
            raise ValueError(f"router {self.kind!r} needs scores of the frames' tokens")
        if self.kind == "attention":
            return given
        return given + SPREAD * _hash_noise(positions, tokens, self.layer)


def _spread(tokens: int, k: int, device: torch.device) -> Tensor:
    """Scores that make the k winners lie evenly over the frame, its last token among them."""
    score = torch.zeros(1, tokens, device=device)
    score[0, tokens - 1 - (torch.arange(k, device=device) * tokens) // max(1, k)] = 1.0
    return score


def _hash_noise(positions: Tensor, tokens: int, layer: int) -> Tensor:
    """Noise (0-1) that depends on stream position and layer alone, so that chunks do not matter."""
    offsets = torch.arange(tokens, device=positions.device)
    seed = (positions[:, None] + offsets[None]) * 1_000_003 + (layer + 1) * 7_919
    for shift, factor in ((13, 0x5BD1E995), (15, 0x27D4EB2F)):
        seed = ((seed ^ (seed >> shift)) * factor) & 0xFFFFFFFF
    return (seed ^ (seed >> 16)).double() / 2**32
