"""Open video models at their published sizes: all that their checkpoints bring but weights, and a
small tokenizer in place of theirs.

Arithmetic depends on neither, so that speed and memory can be measured where no weights can be had.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.openmodels import templates

Fields = Mapping[str, Any]
_NONE: Fields = {}

#: The language model of both: Qwen2-7B, and Qwen2.5-7B in its newer form.
_QWEN_7B: Fields = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-6,
}


@dataclass(frozen=True)
class Published:
    """A checkpoint as it is published, its weights and the words of its tokenizer left out.

    Attributes:
        name: of its repository on the Hugging Face hub.
        title: what people call it.
        config: its config; fields of the language model, of the tower and of the whole may be
            given in place of the published ones.
        template: its chat template.
        mean, std: by which it normalises pictures, whose channels lie in 0-1 before.
        marks: tokens that its template writes beside text.
        ends: tokens that end what it says.
    """

    name: str
    title: str
    config: Callable[..., Any]
    template: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    marks: Sequence[str]
    ends: Sequence[str]

    def write(self, folder: Path, config: Any) -> None:
        """Write ``config`` and the files beside it that loading a checkpoint reads, no weights.

        Args:
            folder: an existing one.
        """
        # Slow to import, and names and sizes are read without them.
        from transformers import GenerationConfig

        from infra.openmodels.tiny import qwen_tokenizer

        tokenizer = qwen_tokenizer(self.marks)
        words = tokenizer.get_vocab()
        tokenizer.save_pretrained(folder)
        config.save_pretrained(folder)
        GenerationConfig(eos_token_id=[words[end] for end in self.ends]).save_pretrained(folder)
        normal = {"image_mean": self.mean, "image_std": self.std}
        (folder / "preprocessor_config.json").write_text(json.dumps(normal))
        (folder / "chat_template.jinja").write_text(self.template)


def llava_onevision_7b(text: Fields = _NONE, vision: Fields = _NONE, **fields: Any) -> Any:
    """LLaVA-OneVision of 7B: SigLIP so400m/14 at 384 pixels, 26 of its 27 layers, and Qwen2-7B.

    Source: ``config.json`` of llava-hf/llava-onevision-qwen2-7b-ov-hf, whole with its commit
    bd59bb6; what that leaves out are the defaults of transformers' ``Qwen2Config`` and
    ``SiglipVisionConfig``.
    """
    from transformers import LlavaOnevisionConfig

    tower = {
        "model_type": "siglip_vision_model",
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 26,
        "num_attention_heads": 16,
        "image_size": 384,
        "patch_size": 14,
        "vision_use_head": False,
    }
    language = {
        "model_type": "qwen2",
        **_QWEN_7B,
        "vocab_size": 152128,
        "max_position_embeddings": 32768,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    }
    return LlavaOnevisionConfig(
        vision_config={**tower, **vision},
        text_config={**language, **text},
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        dtype="bfloat16",
        **fields,
    )


def qwen2_5_vl_7b(text: Fields = _NONE, vision: Fields = _NONE, **fields: Any) -> Any:
    """Qwen2.5-VL of 7B: a tower of 32 layers that look at windows of 112 pixels, four of them at
    the whole picture, and Qwen2.5-7B with positions in time, height and width.

    Source: ``config.json`` of Qwen/Qwen2.5-VL-7B-Instruct, and of its AWQ release for the fields of
    the language model.
    """
    from transformers import Qwen2_5_VLConfig

    tower = {
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "out_hidden_size": 3584,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
        "tokens_per_second": 2,
    }
    language = {
        **_QWEN_7B,
        "vocab_size": 152064,
        "max_position_embeddings": 128000,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e6,
            "mrope_section": [16, 24, 24],
        },
    }
    return Qwen2_5_VLConfig(
        vision_config={**tower, **vision},
        text_config={**language, **text},
        dtype="bfloat16",
        **fields,
    )


#: By the names under which they are measured.
PUBLISHED: Mapping[str, Published] = {
    "llava-onevision-7b": Published(
        "llava-hf/llava-onevision-qwen2-7b-ov-hf",
        "LLaVA-OneVision-7B",
        llava_onevision_7b,
        templates.LLAVA_ONEVISION,
        (0.5, 0.5, 0.5),
        (0.5, 0.5, 0.5),
        templates.LLAVA_MARKS,
        ("<|im_end|>",),
    ),
    "qwen2.5-vl-7b": Published(
        "Qwen/Qwen2.5-VL-7B-Instruct",
        "Qwen2.5-VL-7B",
        qwen2_5_vl_7b,
        templates.QWEN2_5_VL,
        (0.48145466, 0.4578275, 0.40821073),
        (0.26862954, 0.26130258, 0.27577711),
        templates.QWEN_VL_MARKS,
        ("<|im_end|>", "<|endoftext|>"),
    ),
}
