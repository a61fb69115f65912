"""The geometry that benches time: decoder layers dominate, as at full scale."""

from __future__ import annotations

from typing import Any

from transformers import LlamaConfig, SiglipVisionConfig

from mod.config import VideoLLMMoDConfig

WIDTH, LAYERS = 512, 8


def wide_config(vocab_size: int, **fields: Any) -> VideoLLMMoDConfig:
    """A decoder of ``LAYERS`` layers behind a tower that costs next to nothing."""
    return VideoLLMMoDConfig(
        vision_config=SiglipVisionConfig(
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=96,
            patch_size=32,
        ),
        text_config=LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=WIDTH,
            intermediate_size=WIDTH * 8 // 3,
            num_hidden_layers=LAYERS,
            num_attention_heads=WIDTH // 64,
            num_key_value_heads=WIDTH // 256,
            max_position_embeddings=32768,
        ),
        class_token="last",
        **fields,
    )
