"""The page of open models: its figures are those of the published geometries.

Guards against sizes that somebody buys a GPU by and that are not so.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from mod.families.known import FAMILIES

_PAGE = (Path(__file__).parents[3] / "docs" / "open-models.md").read_text()
_SIGLIP = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
}
_SMALL_SIGLIP = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 512,
    "patch_size": 16,
}


def _text(
    width: int, inner: int, layers: int, heads: int, groups: int, vocabulary: int, **more: Any
) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "vocab_size": vocabulary,
        **more,
    }


def _ov(*sizes: int, tied: bool) -> dict[str, Any]:
    tower = {"model_type": "siglip_vision_model", **_SIGLIP, "num_hidden_layers": 26}
    return {
        "model_type": "llava_onevision",
        "vision_config": {**tower, "vision_use_head": False},
        "text_config": {"model_type": "qwen2", **_text(*sizes)},
        "tie_word_embeddings": tied,
    }


def _smol(tower: dict[str, Any], scale: int, *sizes: int, tied: bool) -> dict[str, Any]:
    return {
        "model_type": "smolvlm",
        "vision_config": {"model_type": "smolvlm_vision", **tower},
        "text_config": {"model_type": "llama", **_text(*sizes)},
        "scale_factor": scale,
        "tie_word_embeddings": tied,
    }


def _qwen25(*sizes: int, tied: bool) -> dict[str, Any]:
    return {
        "model_type": "qwen2_5_vl",
        "vision_config": {
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "out_hidden_size": sizes[0],
        },
        "text_config": _text(*sizes),
        "tie_word_embeddings": tied,
    }


def _qwen3(depth: int, width: int, inner: int, *sizes: int, tied: bool) -> dict[str, Any]:
    return {
        "model_type": "qwen3_vl",
        "vision_config": {
            "depth": depth,
            "hidden_size": width,
            "intermediate_size": inner,
            "num_heads": 16,
            "num_position_embeddings": 2304,
            "out_hidden_size": sizes[0],
        },
        "text_config": _text(*sizes, head_dim=128),
        "tie_word_embeddings": tied,
    }


#: Sizes of the published ones.
PUBLISHED = {
    "llava-hf/llava-onevision-qwen2-0.5b-ov-hf": _ov(896, 4864, 24, 14, 2, 152000, tied=True),
    "llava-hf/llava-onevision-qwen2-7b-ov-hf": _ov(3584, 18944, 28, 28, 4, 152128, tied=False),
    "HuggingFaceTB/SmolVLM2-256M-Video-Instruct": _smol(
        _SMALL_SIGLIP, 4, 576, 1536, 30, 9, 3, 49280, tied=False
    ),
    "HuggingFaceTB/SmolVLM2-500M-Video-Instruct": _smol(
        _SMALL_SIGLIP, 4, 960, 2560, 32, 15, 5, 49280, tied=False
    ),
    "HuggingFaceTB/SmolVLM2-2.2B-Instruct": _smol(
        {**_SIGLIP, "num_hidden_layers": 27}, 3, 2048, 8192, 24, 32, 32, 49280, tied=False
    ),
    "HuggingFaceM4/Idefics3-8B-Llama3": {
        **_smol(
            {**_SIGLIP, "num_hidden_layers": 27, "image_size": 364},
            *(2, 4096, 14336, 32, 32, 8, 128259),
            tied=False,
        ),
        "model_type": "idefics3",
    },
    "Qwen/Qwen2.5-VL-3B-Instruct": _qwen25(2048, 11008, 36, 16, 2, 151936, tied=True),
    "Qwen/Qwen2.5-VL-7B-Instruct": _qwen25(3584, 18944, 28, 28, 4, 152064, tied=False),
    "Qwen/Qwen3-VL-2B-Instruct": _qwen3(24, 1024, 4096, 2048, 6144, 28, 16, 8, 151936, tied=True),
    "Qwen/Qwen3-VL-4B-Instruct": _qwen3(24, 1024, 4096, 2560, 9728, 36, 32, 8, 151936, tied=True),
    "Qwen/Qwen3-VL-8B-Instruct": _qwen3(27, 1152, 4304, 4096, 12288, 36, 32, 8, 151936, tied=False),
}


def _row(first: str) -> list[str]:
    """The cells of the table's row that begins with ``first``."""
    found = re.search(rf"^\| `{re.escape(first)}` \|(.*)\|$", _PAGE, re.MULTILINE)
    assert found, f"no row of {first}"
    return [cell.strip() for cell in found[1].split("|")]


def test_every_checkpoint_of_the_page_is_looked_at() -> None:
    listed = set(re.findall(r"^\| `([\w.-]+/[\w.-]+)` \|", _PAGE, re.MULTILINE))
    assert listed - {"chenjoya/videollm-online-8b-v1plus"} == set(PUBLISHED)


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_figures_are_those_of_the_geometry(name: str) -> None:
    fields = dict(PUBLISHED[name])
    config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    family = FAMILIES[config.model_type]
    n = family.tokens_per_frame(config, family.image_size(config, None))
    assert re.search(rf"\b{n}\b", _row(config.model_type)[2])
    text = config.get_text_config()
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    a_token = text.num_hidden_layers * 2 * text.num_key_value_heads * head * 2
    _, weights, cached = _row(name)
    assert cached == f"{a_token * n / family.frames_per_step / 2**20:.1f} MiB"
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    elements = sum(weight.numel() for weight in model.parameters())
    assert weights == f"{2 * elements / 2**30:.1f} GiB"
