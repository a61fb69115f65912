"""Towers and language models that cannot work are refused when their config is made.

Guards against a wrong size, kind or type that shows as a traceback amid a forward, or not at all.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import CLIPVisionConfig, GPT2Config, MistralConfig

from mod.config import VideoLLMMoDConfig
from mod.decoder import Stream
from mod.modeling import VideoLLMMoD
from tests.mod.small import TEXT, small_config, some_frames


@pytest.mark.parametrize(
    ("part", "fields", "named"),
    [
        ("text_config", {"hidden_size": 0}, "text_config.hidden_size must be"),
        ("text_config", {"num_hidden_layers": -1}, "text_config.num_hidden_layers must be"),
        ("text_config", {"num_attention_heads": 0}, "text_config.num_attention_heads must be"),
        ("text_config", {"num_key_value_heads": 0}, "text_config.num_key_value_heads must be"),
        ("text_config", {"head_dim": 0}, "text_config.head_dim must be"),
        ("text_config", {"vocab_size": 0}, "text_config.vocab_size must be"),
        ("text_config", {"intermediate_size": 4.5}, "text_config.intermediate_size must be"),
        ("text_config", {"hidden_act": "gulp"}, "text_config.hidden_act 'gulp'"),
        ("text_config", {"dtype": "int8"}, "text_config.dtype must be one of .*'int8'"),
        ("text_config", {"dtype": "bf32"}, "text_config.dtype must be one of .*'bf32'"),
        ("text_config", {"rope_parameters": {"rope_type": "bend"}}, "rope_type 'bend'"),
        ("vision_config", {"hidden_size": -8}, "vision_config.hidden_size must be"),
        ("vision_config", {"num_hidden_layers": 0}, "vision_config.num_hidden_layers must be"),
        ("vision_config", {"patch_size": 0}, "vision_config.patch_size must be"),
        ("vision_config", {"image_size": [48, 32]}, r"vision_config.image_size must .*\[48, 32\]"),
        ("vision_config", {"hidden_act": "gulp"}, "vision_config.hidden_act 'gulp'"),
        ("vision_config", {"dtype": torch.int32}, "vision_config.dtype must be one of .*int32"),
        ("vision_config", {"vision_use_head": False}, "vision_config.vision_use_head must be true"),
    ],
)
def test_a_part_that_cannot_work_is_refused_by_its_field(
    part: str, fields: dict[str, Any], named: str
) -> None:
    config = small_config().to_dict()
    with pytest.raises(ValueError, match=named):
        VideoLLMMoDConfig(**{**config, part: {**config[part], **fields}})


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"text_config": "llama"}, "text_config must be a config or its dict, not 'llama'"),
        ({"text_config": MistralConfig(**TEXT)}, "text_config.sliding_window must be null"),
        ({"vision_config": CLIPVisionConfig()}, "vision_config.model_type must be 'siglip_vision"),
        ({"dtype": "int8"}, "dtype must be one of float16, bfloat16, float32, float64, not 'int8'"),
        ({"dtype": "bf32"}, "dtype must be one of .* not 'bf32'"),
        ({"fps": float("inf")}, "fps must be above 0, not inf"),
        ({"fps": float("nan")}, "fps must be above 0, not nan"),
        ({"mod_layers": 3}, "mod_layers must be a placement or a list of layers, not 3"),
        ({"mod_layers": ["1"]}, r"mod_layers must be .* not \['1'\]"),
        ({"mod_layers": [1.5]}, r"mod_layers must be .* not \[1.5\]"),
        ({"silence_token": ""}, "silence_token must not be empty"),
        ({"silence_token": "<|end|>"}, r"silence_token '<\|end\|>' is the end_token too"),
    ],
)
def test_a_config_that_cannot_work_is_refused_by_its_field(
    fields: dict[str, Any], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        VideoLLMMoDConfig(**{**small_config().to_dict(), **fields})


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_rope_that_changes_with_length_is_refused(kind: str) -> None:
    """Guards against numbers of a stream that depend on who shares a step with it, and on chunks:
    transformers takes the length from all of them.
    """
    factors: list[float] = [1.0] * 4
    rope = {
        "rope_type": kind,
        "rope_theta": 10000.0,
        "factor": 2.0,
        "original_max_position_embeddings": 128,
        "short_factor": factors,
        "long_factor": factors,
    }
    config = small_config().to_dict()
    config["text_config"]["rope_parameters"] = rope
    named = f"text_config.rope_parameters.rope_type must not be '{kind}': it changes with length"
    with pytest.raises(ValueError, match=named):
        VideoLLMMoDConfig(**config)


@pytest.mark.parametrize("kind", ["default", "linear", "yarn", "llama3"])
def test_rope_that_stays_as_it_is_is_taken(kind: str) -> None:
    config = small_config().to_dict()
    config["text_config"]["rope_parameters"] = {
        "rope_type": kind,
        "rope_theta": 10000.0,
        "factor": 4.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 128,
    }
    assert VideoLLMMoDConfig(**config).text_config.rope_parameters["rope_type"] == kind


def test_a_tower_without_its_head_sees_where_no_class_token_is_asked_for() -> None:
    config = small_config(class_token="none").to_dict()
    config["vision_config"]["vision_use_head"] = False
    model = VideoLLMMoD(VideoLLMMoDConfig(**config))
    assert model.encode_frames(some_frames(2), some_frames(2)).shape == (2, 9, 32)


def test_a_family_that_is_built_otherwise_is_refused_at_construction() -> None:
    text = GPT2Config(vocab_size=400, n_embd=32, n_layer=4, n_head=4)
    config = VideoLLMMoDConfig(vision_config=small_config().vision_config, text_config=text)
    with pytest.raises(ValueError, match=r"text_config.model_type 'gpt2' has no model.layers"):
        VideoLLMMoD(config)


@torch.no_grad()
def test_parts_of_different_types_make_a_model_of_one() -> None:
    """Published configs name types of their own: guards against a forward that mixes them."""
    config = small_config().to_dict()
    config["text_config"]["dtype"], config["vision_config"]["dtype"] = "bfloat16", "float64"
    model = VideoLLMMoD(VideoLLMMoDConfig(**config)).eval()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    tokens = model.encode_frames(some_frames(1), some_frames(1))[0]
    hidden = model(Stream(tokens, torch.arange(10), torch.tensor([0]), [10]))
    assert torch.isfinite(model.logits(hidden)).all()
