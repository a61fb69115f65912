"""The LIVE training objective on one batch, and what teaches the tower to see."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mod.batches import IGNORE, Batch
from mod.change import within
from mod.decoder import RoutedDecoder, Stream
from mod.modeling import VideoLLMMoD
from mod.world.things import NAMES, NOTHING, UNKNOWN
from mod.world.words import MOVES

#: Where nobody knows the class, of motions as of things.
_UNKNOWN = UNKNOWN - NOTHING


def live_loss(
    logits: Tensor,
    labels: Tensor,
    silence: int | None,
    sigma: float = 1.0,
    decisions: Tensor | None = None,
) -> Tensor:
    """Mean negative log-likelihood over supervised positions, silence weighed by ``sigma``.

    Args:
        logits: (positions, vocabulary) of supervised positions only.
        labels: (positions,).
        decisions: (positions,) bool, where a label that is ``silence`` means it; None where it
            does everywhere.

    Source: VideoLLM-online, equation 2.
    """
    each = F.cross_entropy(logits.float(), labels, reduction="none")
    if silence is not None:
        silent = labels == silence if decisions is None else (labels == silence) & decisions
        each = each * torch.where(silent, sigma, 1.0)
    return each.sum() / max(1, len(labels))


def stream_of(model: RoutedDecoder, batch: Batch, tokens: Tensor | None) -> Stream:
    """The batch as the model takes it; ``tokens`` are its encoded frames, None without frames."""
    embeddings = model.embed_text(batch.token_ids)
    change = deep = None
    if tokens is not None:
        embeddings, deep = model.woven(embeddings, batch.frame_starts, tokens)
        if model.config.router == "redundancy":
            seen = tokens[..., : embeddings.shape[1]]
            change = within(seen, batch.frame_starts, batch.lengths)
    return Stream(
        embeddings,
        batch.positions,
        batch.frame_starts,
        batch.lengths,
        change=change,
        deep=deep,
    )


class Perception(nn.Module):
    """Heads on the tower that are asked for cut, motion, mean colour and things of each frame.

    A few narrated words a minute say little about what a frame holds; these dense labels make
    the tower learn it. Motion is also asked of each patch alone, which is where it shows first.
    The heads are dropped from the checkpoint.
    """

    def __init__(self, vision_size: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.LayerNorm(vision_size), nn.Linear(vision_size, vision_size), nn.GELU()
        )
        self.cut = nn.Linear(vision_size, 1)
        self.move = nn.Linear(vision_size, len(MOVES))
        self.patch_move = nn.Linear(vision_size, len(MOVES))
        self.colour = nn.Linear(vision_size, 3)
        self.thing = nn.Linear(vision_size, 1 + len(NAMES))

    def forward(self, patches: Tensor, pooled: Tensor, batch: Batch) -> Tensor:
        """The summed losses on the tower's features, as ``VideoLLMMoD.see`` gives them."""
        assert batch.cuts is not None
        assert batch.moves is not None
        seen = self.trunk(pooled)
        cut = F.binary_cross_entropy_with_logits(self.cut(seen)[:, 0], batch.cuts.float())
        move = _of_known(self.move(seen), batch.moves)
        each = self.patch_move(patches).flatten(0, 1)
        local = _of_known(each, batch.moves.repeat_interleave(patches.shape[1]))
        colour = F.l1_loss(self.colour(seen), batch.colours)
        out: Tensor = cut + move + 0.3 * local + 4.0 * colour
        return out + self._things(patches, batch)

    def _things(self, patches: Tensor, batch: Batch) -> Tensor:
        """Which thing each patch shows, if any; asked of the patches alone.

        So the class token, which every layer processes, does not hold it already.
        """
        assert batch.things is not None
        side = int(patches.shape[1] ** 0.5)
        cells = F.interpolate(batch.things[:, None].float(), size=(side, side), mode="nearest")
        true = cells.flatten().long()
        # Most cells show nothing, which is learned soon.
        weight = torch.ones(1 + len(NAMES), device=patches.device)
        weight[0] = 0.2
        return _of_known(self.thing(patches).flatten(0, 1), true - NOTHING, weight)


def _of_known(logits: Tensor, true: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean cross-entropy where a class is known, 0 where none is.

    Args:
        logits: (places, classes).
        true: (places,) classes, ``_UNKNOWN`` where nobody knows.
        weight: of each class.
    """
    total = F.cross_entropy(logits, true, weight, ignore_index=_UNKNOWN, reduction="sum")
    known = true != _UNKNOWN
    each = known.float() if weight is None else weight[true.clamp(min=0)] * known
    # A frame after a cut alone has no motion: of nothing torch makes no mean.
    return total / each.sum().clamp(min=1e-6)


class Objective(nn.Module):
    """Model and heads under one forward, so that one wrapper can replicate or shard both.

    Args:
        model: heads are put on the tower of a VideoLLM-MoD alone.
        silence: id of the silence token; None where there is none.
        sigma: weight of silence in the LIVE loss.
        perception_weight: weight of the heads' losses.
    """

    def __init__(
        self,
        model: RoutedDecoder,
        silence: int | None,
        *,
        sigma: float = 1.0,
        perception_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.model = model
        self.perception: Perception | None = None
        if isinstance(model, VideoLLMMoD):
            self.perception = Perception(model.config.vision_config.hidden_size)
        self._silence, self._sigma, self._perception_weight = silence, sigma, perception_weight

    def forward(self, batch: Batch, see_only: bool = False) -> dict[str, Tensor]:
        """Losses of one batch.

        Args:
            see_only: run tower and heads alone.

        Returns:
            ``loss``, which is to be minimized, and detached, as far as measured: ``live``,
            ``perception``, and ``right``, the share of supervised positions predicted right.
        """
        model = self.model
        tokens, seen = self._seen(batch, see_only=see_only)
        if see_only:
            assert seen is not None
            return {"loss": seen, "perception": seen.detach()}
        hidden = model(stream_of(model, batch, tokens))
        asked = (batch.labels != IGNORE).nonzero()[:, 0]
        logits = model.logits(hidden[asked])
        labels = batch.labels[asked]
        live = live_loss(logits, labels, self._silence, self._sigma, batch.decisions[asked])
        results = {"loss": live}
        if len(labels):
            right = (logits.argmax(-1) == labels).float().mean()
            results |= {"live": live.detach(), "right": right}
        if seen is not None:
            results |= {"loss": live + self._perception_weight * seen, "perception": seen.detach()}
        return results

    def _seen(self, batch: Batch, *, see_only: bool) -> tuple[Tensor | None, Tensor | None]:
        """Vision tokens, and what the heads lose on them, as far as either is needed."""
        model = self.model
        if not len(batch.frames):
            return None, None
        if not isinstance(model, VideoLLMMoD) or self.perception is None:
            return model.encode_frames(batch.frames, batch.before), None
        patches, pooled = model.see(batch.frames, batch.before)
        if see_only:
            return None, self.perception(patches, pooled, batch)
        lost = None
        if batch.cuts is not None and self._perception_weight:
            lost = self.perception(patches, pooled, batch)
        return model.connect(patches, pooled), lost
