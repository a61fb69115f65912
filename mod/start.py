"""What a training run starts from: a new tiny model, or a checkpoint."""

from __future__ import annotations

import torch

from longreel.errors import UsageError
from mod.adopted import adopted_config
from mod.checkpoint import OURS, Checkpoint, find_checkpoint
from mod.choice import RouterChoice, choose_router
from mod.config import RoutedConfig, VideoLLMMoDConfig
from mod.decoder import RoutedDecoder
from mod.layout import Layout, StreamLayout, train_tokenizer
from mod.loading import load, load_open, refuse_larger_than_memory, route
from mod.modeling import VideoLLMMoD
from mod.recipe import NEW_TINY, TrainRecipe
from mod.routers import TRAINED
from mod.tiny import tiny_config
from mod.world.dialogues import corpus

#: Share of vision tokens that the first router of an open model keeps.
KEEP_RATIO = 0.2


def check_start(recipe: TrainRecipe) -> None:
    """Refuse what cannot be trained, before anything is started.

    Raises:
        UsageError: there is no such checkpoint, or the recipe does not go with it.
    """
    if recipe.model.start == NEW_TINY:
        _new_config(recipe, recipe.model.vocab_size)
        return
    checkpoint = find_checkpoint(recipe.model.start)
    if checkpoint.kind != OURS and not recipe.data.narrations:
        raise UsageError(
            f"an open model such as {checkpoint.name!r} learns from own footage: name it by "
            "data.narrations"
        )
    router, keep_ratio = _router(recipe, checkpoint)
    kind = VideoLLMMoDConfig.from_pretrained if checkpoint.kind == OURS else adopted_config
    _route(kind(checkpoint.folder), keep_ratio, _chosen(router, checkpoint))


def _router(recipe: TrainRecipe, checkpoint: Checkpoint) -> tuple[str | None, float | None]:
    """Router and keep ratio that a checkpoint is trained with; None keeps its own."""
    spelled, keep = recipe.model.router, recipe.model.keep_ratio
    if checkpoint.kind == OURS or (spelled is None and checkpoint.router in TRAINED):
        return spelled, keep
    spelled = spelled or "bounded"
    chosen = _chosen(spelled, checkpoint)
    if chosen is not None and chosen.kind not in TRAINED:
        raise UsageError(f"model.router must be one that learns: {', '.join(TRAINED)}")
    if keep is None and checkpoint.router not in TRAINED:
        keep = KEEP_RATIO
    return spelled, keep


def _chosen(spelled: str | None, checkpoint: Checkpoint | None) -> RouterChoice | None:
    if spelled is None:
        return None
    return choose_router(spelled, checkpoint, new=True, named="model.router")


def _route(config: RoutedConfig, keep_ratio: float | None, chosen: RouterChoice | None) -> None:
    try:
        route(config, keep_ratio, chosen)
    except ValueError as failure:
        raise UsageError(f"model.router and model.keep_ratio: {failure}") from None
    if config.router == "none" and keep_ratio is not None and keep_ratio < 1.0:
        raise UsageError(
            f"model.keep_ratio of {keep_ratio:g} needs a model.router that skips, not 'none'"
        )


def _new_config(recipe: TrainRecipe, vocab_size: int) -> VideoLLMMoDConfig:
    config = tiny_config(vocab_size)
    _route(config, recipe.model.keep_ratio, _chosen(recipe.model.router, None))
    return config


def start(recipe: TrainRecipe, device: torch.device | None = None) -> tuple[RoutedDecoder, Layout]:
    """The model that ``recipe`` starts from, on the CPU, and its stream layout.

    Args:
        device: on which it will be trained, whole unless in shards.

    Raises:
        UsageError: see ``check_start``; or its weights do not fit the memory or the device.
    """
    check_start(recipe)
    torch.manual_seed(recipe.training.seed)
    if recipe.model.start != NEW_TINY:
        checkpoint = find_checkpoint(recipe.model.start)
        router, keep_ratio = _router(recipe, checkpoint)
        if recipe.scale.workers == 1 or recipe.scale.strategy == "ddp":
            refuse_larger_than_memory(checkpoint.folder, device=device)
        if checkpoint.kind == OURS:
            return load(checkpoint, keep_ratio, router, new=True)
        return load_open(checkpoint, keep_ratio, router, new=True)
    draft = tiny_config(recipe.model.vocab_size)
    tokenizer = train_tokenizer(corpus(), draft, recipe.model.vocab_size)
    config = _new_config(recipe, len(tokenizer))
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
