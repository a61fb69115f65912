"""What a training run starts from: a new tiny model, or a checkpoint."""

from __future__ import annotations

import torch

from mod.checkpoint import find_checkpoint
from mod.layout import StreamLayout, train_tokenizer
from mod.loading import load
from mod.modeling import VideoLLMMoD
from mod.recipe import NEW_TINY, TrainRecipe
from mod.tiny import tiny_config
from mod.world.dialogues import corpus


def start(recipe: TrainRecipe) -> tuple[VideoLLMMoD, StreamLayout]:
    """The model that ``recipe`` starts from, and its stream layout.

    Raises:
        UsageError: there is no such checkpoint.
    """
    if recipe.model.start != NEW_TINY:
        return load(find_checkpoint(recipe.model.start), recipe.model.keep_ratio)
    torch.manual_seed(recipe.training.seed)
    draft = tiny_config(recipe.model.vocab_size)
    tokenizer = train_tokenizer(corpus(), draft, recipe.model.vocab_size)
    config = tiny_config(len(tokenizer))
    if recipe.model.keep_ratio is not None:
        config.keep_ratio = recipe.model.keep_ratio
        config.check()
    model = VideoLLMMoD(config)
    cosine_start(model)
    return model, StreamLayout.of(tokenizer, config)


def cosine_start(model: VideoLLMMoD) -> None:
    """Start the patch embedding as a cosine transform, low frequencies first.

    Half of its rows see the luma of the difference to the frame before, an eighth the colour and
    the rest the luma of the frame itself. A random start has to find out that pictures have
    colours and edges before it can compare them; this one sees both from the first step.
    """
    weight = model.vision_tower.embeddings.patch_embedding.weight
    width, channels, side, _ = weight.shape
    line = (torch.arange(side) + 0.5) * torch.pi / side
    waves = sorted(
        ((u, v) for u in range(side) for v in range(side)), key=lambda w: (w[0] + w[1], w)
    )
    luma = torch.tensor([[0.299, 0.587, 0.114]])
    chroma = torch.tensor([[0.5, -0.42, -0.08], [-0.17, -0.33, 0.5]])
    nothing = torch.zeros(1, 3)
    planes = [(luma, width - width // 8), (chroma, width // 8)]
    if channels == 6:
        frame, change = torch.cat([luma, nothing], 1), torch.cat([nothing, luma], 1)
        hue = torch.cat([chroma, nothing.expand(2, 3)], 1)
        planes = [(frame, width // 2 - width // 8), (hue, width // 8), (change, width // 2)]
    rows = []
    for weights, count in planes:
        for u, v in waves[: -(-count // len(weights))]:
            wave = torch.outer(torch.cos(line * u), torch.cos(line * v))
            wave = wave / wave.norm() / side**0.5
            rows += [plane[:, None, None] * wave for plane in weights]
    with torch.no_grad():
        weight.copy_(2.0 * torch.stack(rows)[:width])
