"""Small models with the real classes, for tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
    SiglipVisionConfig,
)

from mod.config import VideoLLMMoDConfig
from mod.layout import MarkedLayout, StreamLayout, train_tokenizer
from mod.modeling import VideoLLMMoD
from mod.world.dialogues import corpus

#: Fields of the small language models.
TEXT: dict[str, Any] = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
FAMILIES: dict[str, Callable[..., Any]] = {
    "llama": LlamaConfig,
    "mistral": lambda **kw: MistralConfig(sliding_window=None, **kw),
    "qwen2": Qwen2Config,
    "qwen3": lambda **kw: Qwen3Config(head_dim=8, **kw),
}


def small_config(family: str = "llama", **fields: Any) -> VideoLLMMoDConfig:
    """A four-layer config of one family; ``fields`` override."""
    return VideoLLMMoDConfig(
        vision_config=SiglipVisionConfig(
            hidden_size=24,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=48,
            patch_size=16,
            num_channels=6 if fields.get("frame_difference") else 3,
        ),
        text_config=FAMILIES[family](**TEXT),
        **{"class_token": "last", **fields},
    )


def small_model(family: str = "llama", seed: int = 0, **fields: Any) -> VideoLLMMoD:
    """A model with random weights, routers included, in eval mode."""
    torch.manual_seed(seed)
    model = VideoLLMMoD(small_config(family, **fields)).eval()
    for router in model.routers.values():
        if hasattr(router, "weight"):
            torch.nn.init.normal_(router.weight, std=1.0)
    return model


def small_layout(config: VideoLLMMoDConfig) -> MarkedLayout:
    """A tokenizer of the generated world's words."""
    layout = StreamLayout.of(train_tokenizer(corpus(), config, 400), config)
    assert isinstance(layout, MarkedLayout)
    return layout


def some_frames(n: int, seed: int = 0, size: int = 48) -> torch.Tensor:
    """``n`` random pictures."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, size, size, 3), dtype=torch.uint8, generator=generator)
