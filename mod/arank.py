"""Which layers a dense model can skip tokens in: ``python -m mod.arank CHECKPOINT``.

A layer whose vision tokens all look at the same things does little that one of them would not do:
its attention maps have a low rank. Layers are ranked by it on some streams of the generated world.

Source: ARank, gamma-MoD (arXiv 2410.13859), section 3.2.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from longreel.errors import LongreelError
from mod.attention import causal_attention
from mod.batches import collate, scaled
from mod.checkpoint import find_checkpoint
from mod.decoder import RoutedDecoder
from mod.dialogue import Dialogue
from mod.layout import Layout
from mod.loading import load_any
from mod.objective import stream_of
from mod.world.dialogues import watch

#: Seed of the first stream that is looked at; training has others.
FIRST_SEED = 2000


def effective_rank(maps: Tensor) -> Tensor:
    """The exponential of the entropy of the singular values of ``maps`` (..., rows, columns).

    One where all rows are alike. The number of singular values that are not 0 would hardly tell
    layers apart: rounding and a softmax make it full everywhere.

    Source: Roy and Vetterli, "The effective rank" (EUSIPCO 2007).
    """
    values = torch.linalg.svdvals(maps.float())
    share = values / values.sum(-1, keepdim=True)
    return torch.special.entr(share).sum(-1).exp()


class _Ranks:
    """Attends as one dense sequence does, and notes the ranks of its frames' maps.

    A map is what a frame's tokens (rows) give to those of all frames before it (columns): no causal
    mask cuts into it, which alone would make its rank full.

    Args:
        frame_starts: (frames,) first token of each frame.
    """

    def __init__(self, n_layers: int, frame_starts: Tensor, tokens_per_frame: int) -> None:
        self._places = frame_starts[:, None] + torch.arange(
            tokens_per_frame, device=frame_starts.device
        )
        self.found: list[list[float]] = [[] for _ in range(n_layers)]

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float
    ) -> Tensor:
        """See :class:`mod.attention.Paged`; nothing is cached."""
        keys = key.repeat_interleave(query.shape[0] // key.shape[0], 0).float()
        places = self._places.to(query.device)
        for frame in range(1, len(places)):
            rows = query[:, places[frame]].float()
            columns = keys[:, places[:frame].flatten()]
            maps = (rows @ columns.transpose(1, 2) * scaling).softmax(-1)
            self.found[layer].append(float(effective_rank(maps).mean()))
        return causal_attention(query[None], key[None], value[None], scaling)[0].transpose(0, 1)


@torch.inference_mode()
def layer_ranks(model: RoutedDecoder, layout: Layout, dialogues: Sequence[Dialogue]) -> list[float]:
    """Mean effective rank of each layer's attention maps, over heads, frames and ``dialogues``.

    Of a model that has to be asked, what is said in ``dialogues`` is left out: its stream holds
    frames alone.

    Args:
        model: every token of which runs in every layer.
        dialogues: of two frames at least, at the model's picture size; of models that see several
            frames as one, of two such steps.

    Raises:
        ValueError: the model skips tokens.
    """
    if model.config.router != "none":
        raise ValueError(f"layers are ranked on a dense model, not with {model.config.router!r}")
    n_layers = model.config.get_text_config().num_hidden_layers
    found: list[list[float]] = [[] for _ in range(n_layers)]
    places = model.places(float(model.config.fps))
    for dialogue in dialogues:
        if layout.asking is not None:
            dialogue = Dialogue(dialogue.frames, [None] * len(dialogue.frames))
        batch = collate([dialogue], layout, model.config, places).to(model.device)
        tokens = model.encode_frames(batch.frames, batch.before)
        ranks = _Ranks(n_layers, batch.frame_starts, model.config.tokens_per_frame)
        stream = stream_of(model, batch, tokens)
        model(replace(stream, frames=[len(batch.frame_starts)], paged=ranks))
        for layer, each in enumerate(ranks.found):
            found[layer] += each
    return [sum(each) / len(each) for each in found]


def proposed(ranks: Sequence[float], share: float) -> list[int]:
    """The ``share`` (0-1) of the layers that lose least, one at least: those of the lowest rank."""
    count = max(1, round(share * len(ranks)))
    return sorted(sorted(range(len(ranks)), key=lambda layer: (ranks[layer], layer))[:count])


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m mod.arank", description=__doc__)
    parser.add_argument("checkpoint", help="whatever --model of longreel serve takes")
    parser.add_argument(
        "--share", type=float, default=0.5, help="of the layers to propose, 0-1 (default 0.5)"
    )
    parser.add_argument("--streams", type=int, default=8, help="to look at (default 8)")
    parser.add_argument("--frames", type=int, default=12, help="of each stream (default 12)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args(arguments)
    if not 0 < args.share <= 1:
        parser.error(f"--share must lie in (0, 1], not {args.share}")
    if args.streams < 1 or args.frames < 2:
        parser.error("at least 1 stream and 2 frames are needed")
    try:
        model, layout = load_any(find_checkpoint(args.checkpoint), router="none")
    except LongreelError as failure:
        parser.error(str(failure))
    per_step = model.config.frames_per_step
    if args.frames < 2 * per_step:
        least = 2 * per_step
        parser.error(f"this model sees {per_step} frames as one: --frames must be {least} or more")
    side = int(model.config.image_size)
    shown = [watch(FIRST_SEED + i, args.frames) for i in range(args.streams)]
    seen = [replace(each, frames=scaled(each.frames, side), labels=None) for each in shown]
    ranks = layer_ranks(model, layout, seen)
    layers = proposed(ranks, args.share)
    if args.json:
        print(json.dumps({"ranks": ranks, "mod_layers": layers}))
        return
    for layer, rank in enumerate(ranks):
        print(f"layer {layer:>3}  rank {rank:6.2f}  {'skip' if layer in layers else ''}".rstrip())
    print(f"--router redundancy:{','.join(map(str, layers))}")


if __name__ == "__main__":
    main()
