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
import torch.nn.functional as F
from torch import Tensor

from longreel.errors import LongreelError
from mod.attention import causal_attention
from mod.batches import collate
from mod.checkpoint import find_checkpoint
from mod.decoder import frames_before
from mod.dialogue import Dialogue
from mod.layout import StreamLayout
from mod.loading import load
from mod.modeling import VideoLLMMoD
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
        for frame in range(1, len(self._places)):
            rows = query[:, self._places[frame]].float()
            columns = keys[:, self._places[:frame].flatten()]
            maps = (rows @ columns.transpose(1, 2) * scaling).softmax(-1)
            self.found[layer].append(float(effective_rank(maps).mean()))
        return causal_attention(query[None], key[None], value[None], scaling)[0].transpose(0, 1)


@torch.inference_mode()
def layer_ranks(
    model: VideoLLMMoD, layout: StreamLayout, dialogues: Sequence[Dialogue]
) -> list[float]:
    """Mean effective rank of each layer's attention maps, over heads, frames and ``dialogues``.

    Args:
        model: every token of which runs in every layer.
        dialogues: of two frames at least, at the model's picture size.
    """
    if model.config.router != "none":
        raise ValueError(f"layers are ranked on a dense model, not with {model.config.router!r}")
    n_layers = model.config.get_text_config().num_hidden_layers
    found: list[list[float]] = [[] for _ in range(n_layers)]
    for dialogue in dialogues:
        batch = collate([dialogue], layout, model.config).to(model.device)
        tokens = model.encode_frames(batch.frames, frames_before(batch.frames, None))
        ranks = _Ranks(n_layers, batch.frame_starts, model.config.tokens_per_frame)
        stream = stream_of(model, batch, tokens)
        model(replace(stream, frames=[len(batch.frames)], paged=ranks))
        for layer, each in enumerate(ranks.found):
            found[layer] += each
    return [sum(each) / len(each) for each in found]


def proposed(ranks: Sequence[float], share: float) -> list[int]:
    """The ``share`` (0-1) of the layers that lose least, one at least: those of the lowest rank."""
    count = max(1, round(share * len(ranks)))
    return sorted(sorted(range(len(ranks)), key=lambda layer: (ranks[layer], layer))[:count])


def _sized(dialogue: Dialogue, side: int) -> Dialogue:
    """The dialogue with pictures of the model's size."""
    frames = torch.from_numpy(dialogue.frames).permute(0, 3, 1, 2).float()
    scaled = F.interpolate(frames, size=(side, side), mode="bilinear", antialias=True)
    return replace(dialogue, frames=scaled.round().byte().permute(0, 2, 3, 1).numpy(), labels=None)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m mod.arank", description=__doc__)
    parser.add_argument("checkpoint", help="'longreel-tiny' or the folder of a checkpoint")
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
        model, layout = load(find_checkpoint(args.checkpoint), router="none")
    except LongreelError as failure:
        parser.error(str(failure))
    side = model.config.vision_config.image_size
    seen = [_sized(watch(FIRST_SEED + i, args.frames), side) for i in range(args.streams)]
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
