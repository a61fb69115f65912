"""What a training run starts from: a new tiny model, or a checkpoint."""

from __future__ import annotations

import torch

from longreel.errors import UsageError
from mod.checkpoint import OURS, Checkpoint, find_checkpoint
from mod.choice import TRAINED, choose_router
from mod.decoder import RoutedDecoder
from mod.layout import Layout, StreamLayout, train_tokenizer
from mod.loading import load, load_open
from mod.modeling import VideoLLMMoD
from mod.recipe import NEW_TINY, TrainRecipe
from mod.tiny import tiny_config
from mod.world.dialogues import corpus

#: Share of vision tokens that a new router of an open model keeps.
KEEP_RATIO = 0.2


def check_start(recipe: TrainRecipe) -> None:
    """Refuse what cannot be trained, before anything is started.

    Raises:
        UsageError: there is no such checkpoint, or the recipe does not go with it.
    """
    if recipe.model.start == NEW_TINY:
        return
    checkpoint = find_checkpoint(recipe.model.start)
    if checkpoint.kind == OURS:
        if recipe.model.router is not None:
            raise UsageError("model.router is for open models; VideoLLM-MoD has its own")
        return
    if not recipe.data.narrations:
        raise UsageError(
            f"an open model such as {checkpoint.name!r} learns from own footage: name it by "
            "data.narrations"
        )
    _router(recipe, checkpoint)


def _router(recipe: TrainRecipe, checkpoint: Checkpoint) -> tuple[str | None, float | None]:
    """Router and keep ratio that an open model is trained with; None keeps its own."""
    spelled, keep = recipe.model.router, recipe.model.keep_ratio
    if spelled is None and checkpoint.router in TRAINED:
        return None, keep
    spelled = spelled or "bounded"
    if choose_router(spelled, checkpoint, new=True).kind not in TRAINED:
        raise UsageError(f"model.router must be one that learns: {', '.join(TRAINED)}")
    return spelled, KEEP_RATIO if keep is None else keep


def start(recipe: TrainRecipe) -> tuple[RoutedDecoder, Layout]:
    """The model that ``recipe`` starts from, and its stream layout.

    Raises:
        UsageError: see ``check_start``.
    """
    check_start(recipe)
    if recipe.model.start != NEW_TINY:
        checkpoint = find_checkpoint(recipe.model.start)
        if checkpoint.kind == OURS:
            return load(checkpoint, recipe.model.keep_ratio)
        router, keep_ratio = _router(recipe, checkpoint)
        return load_open(checkpoint, keep_ratio, router, new=True)
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
