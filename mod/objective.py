"""The LIVE training objective on one batch, with auxiliary losses that teach the eyes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mod.batches import IGNORE, Batch
from mod.modeling import Stream, VideoLLMMoD
from mod.world.words import MOVES


def live_loss(logits: Tensor, labels: Tensor, silence: int, sigma: float = 1.0) -> Tensor:
    """Mean negative log-likelihood over supervised positions, silence weighed by ``sigma``.

    Args:
        logits: (positions, vocabulary) of supervised positions only.
        labels: (positions,).

    Source: VideoLLM-online, equation 2.
    """
    each = F.cross_entropy(logits.float(), labels, reduction="none")
    weight = torch.where(labels == silence, sigma, 1.0)
    return (each * weight).sum() / len(labels)


class Perception(nn.Module):
    """Heads on the decision token that are asked for cut, motion and mean colour.

    A few narrated words a minute say little about what a frame holds; these dense labels make
    the tower and the first layers learn it. The heads are dropped from the checkpoint.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.cut = nn.Linear(hidden_size, 1)
        self.move = nn.Linear(hidden_size, len(MOVES))
        self.colour = nn.Linear(hidden_size, 3)

    def forward(self, hidden: Tensor, batch: Batch) -> Tensor:
        """The summed losses; ``hidden`` is (frames, D) at each frame's last vision token."""
        cut = F.binary_cross_entropy_with_logits(self.cut(hidden)[:, 0], batch.cuts.float())
        move = F.cross_entropy(self.move(hidden), batch.moves, ignore_index=-1)
        colour = F.l1_loss(self.colour(hidden), batch.colours)
        out: Tensor = cut + move + 4.0 * colour
        return out


def stream_of(model: VideoLLMMoD, batch: Batch) -> Stream:
    """The batch as the model takes it."""
    embeddings = model.embed_text(batch.token_ids)
    if len(batch.frames):
        n = model.config.tokens_per_frame
        seen = model.encode_frames(batch.frames)
        places = (batch.frame_starts[:, None] + torch.arange(n)).flatten()
        embeddings = embeddings.index_copy(0, places, seen.flatten(0, 1).to(embeddings.dtype))
    return Stream(embeddings, batch.positions, batch.frame_starts, batch.lengths)


def losses(
    model: VideoLLMMoD, perception: Perception, batch: Batch, silence: int
) -> tuple[Tensor, Tensor, Tensor]:
    """LIVE loss, perception loss, and the share of supervised positions predicted right."""
    hidden = model(stream_of(model, batch))
    asked = (batch.labels != IGNORE).nonzero()[:, 0]
    logits = model.logits(hidden[asked])
    labels = batch.labels[asked]
    right = (logits.argmax(-1) == labels).float().mean()
    seen = hidden.new_zeros(())
    if len(batch.frames):
        last = batch.frame_starts + model.config.tokens_per_frame - 1
        seen = perception(hidden[last].float(), batch)
    return live_loss(logits, labels, silence), seen, right
