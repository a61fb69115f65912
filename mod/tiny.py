"""The geometry of ``longreel-tiny``."""

from __future__ import annotations

from transformers import LlamaConfig, SiglipVisionConfig

from mod.config import VideoLLMMoDConfig


def tiny_config(vocab_size: int) -> VideoLLMMoDConfig:
    """The config of ``longreel-tiny``: 96x96 pictures, 10 tokens a frame, 6 layers, 3 of them MoD.

    The class token comes last, so that the model decides to speak from the token that has seen
    the whole frame. The tower is too small to be asked to find out what moved by comparing
    tokens of different frames: it sees the difference of two frames in its own channels.
    """
    return VideoLLMMoDConfig(
        vision_config=SiglipVisionConfig(
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=3,
            num_attention_heads=4,
            image_size=96,
            patch_size=32,
            num_channels=6,
        ),
        text_config=LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=6,
            num_attention_heads=6,
            num_key_value_heads=2,
            max_position_embeddings=16384,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=4,
        ),
        class_token="last",
        frame_difference=True,
        router="bounded",
        keep_ratio=0.2,
        summarizer="digest",
    )
