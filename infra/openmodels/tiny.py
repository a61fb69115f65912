"""Tiny checkpoints of open video models in their published layout.

Classes, processors, chat templates and files are the real ones; sizes are not, and weights are
random: large enough that answers vary with the frames and with the question.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    pre_tokenizers,
    processors,
    trainers,
)
from torch import nn
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from infra.openmodels import templates

_SENTENCES = (
    "What happens in the video? What happens next? And then? Why is that so?",
    "Describe in one short sentence what is happening now. Be brief.",
    "You are a helpful assistant. You answer questions about videos.",
    "You are provided the following series of three frames from a 0:00:03 [H:MM:SS] video.",
    "Frame from 00:01: A man walks his dog along the river, and a boat passes by.",
    "The camera turns to the left; a red car stops at the lights for 12.5 seconds.",
    "Two children are playing with a ball on the beach, then they run away.",
    "User: Assistant: System: user assistant system",
)

#: What the small language models have in common.
_TEXT: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}
#: The towers of Idefics3 and SmolVLM2.
_SHUFFLED: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 14,
}


def llava_onevision(folder: Path, image_size: int = 56, *, tied: bool = False) -> None:
    """LLaVA-OneVision: patches of 14 pixels, pooled by two.

    Args:
        image_size: 76 makes an odd grid with pixels left over, as 384 does in the published ones.
        tied: without an output layer of its own, as the 0.5B is.
    """
    tokenizer = qwen_tokenizer(templates.LLAVA_MARKS)
    size = {"height": image_size, "width": image_size}
    normal = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    pinpoints = [[image_size * i, image_size * j] for i in (1, 2) for j in (1, 2)]
    processor = transformers.LlavaOnevisionProcessor(
        transformers.LlavaOnevisionImageProcessor(
            size=size, image_grid_pinpoints=pinpoints, **normal
        ),
        tokenizer,
        transformers.LlavaOnevisionVideoProcessor(size=size, **normal),
        num_image_tokens=(image_size // 14) ** 2,
        vision_feature_select_strategy="full",
        chat_template=templates.LLAVA_ONEVISION,
    )
    config = transformers.LlavaOnevisionConfig(
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": image_size,
            "patch_size": 14,
            "vision_use_head": False,
        },
        text_config={
            "model_type": "qwen2",
            **_text(tokenizer, rope_theta=1e6),
            "tie_word_embeddings": tied,
        },
        tie_word_embeddings=tied,
        image_token_index=_id(tokenizer, "<image>"),
        video_token_index=_id(tokenizer, "<video>"),
        image_grid_pinpoints=pinpoints,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    model = transformers.LlavaOnevisionForConditionalGeneration(config)
    _save(folder, processor, model, ["<|im_end|>"])


def smolvlm(folder: Path) -> None:
    """SmolVLM2: 4 x 4 patches shuffled into 2 x 2; the template it brings knows no videos."""
    backend = _backend(
        pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        ),
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    )
    parts = ["<global-img>", *(f"<row_{i}_col_{j}>" for i in range(1, 7) for j in range(1, 7))]
    backend.add_special_tokens([*parts, "<fake_token_around_image>", "<image>"])
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="<|endoftext|>",
        bos_token="<|im_start|>",
        eos_token="<end_of_utterance>",
        pad_token="<|im_end|>",
        extra_special_tokens={
            "fake_image_token": "<fake_token_around_image>",
            "image_token": "<image>",
            "end_of_utterance_token": "<end_of_utterance>",
            "global_image_token": "<global-img>",
        },
    )
    side = {"longest_edge": 56}
    sampling = {"fps": 1, "max_frames": 64, "video_size": side}
    processor = transformers.SmolVLMProcessor(
        transformers.SmolVLMImageProcessor(size={"longest_edge": 4 * 56}, max_image_size=side),
        tokenizer,
        transformers.SmolVLMVideoProcessor(size=side, max_image_size=side, video_sampling=sampling),
        image_seq_len=4,
        chat_template=templates.SMOLVLM,
    )
    config = transformers.SmolVLMConfig(
        vision_config={"model_type": "smolvlm_vision", **_SHUFFLED},
        text_config={"model_type": "llama", **_text(tokenizer, rope_theta=130000.0)},
        image_token_id=_id(tokenizer, "<image>"),
        scale_factor=2,
    )
    model = transformers.SmolVLMForConditionalGeneration(config)
    _save(folder, processor, model, ["<end_of_utterance>"])


def idefics3(folder: Path, *, marks: bool = False) -> None:
    """Idefics3: as SmolVLM2, with no videos, and a tokenizer that begins texts as Llama 3's does.

    Args:
        marks: ``<global-img>`` is one token, as in SmolVLM 1; otherwise text, as in Idefics3-8B.
    """
    start, end = "<|begin_of_text|>", "<|end_of_text|>"
    backend = _backend(pre_tokenizers.ByteLevel(add_prefix_space=False))
    backend.add_special_tokens([start, end, "<fake_token_around_image>", "<image>"])
    backend.add_special_tokens(["<end_of_utterance>", *(["<global-img>"] if marks else [])])
    backend.post_processor = processors.TemplateProcessing(
        single=f"{start} $A", special_tokens=[(start, backend.token_to_id(start))]
    )
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=start, eos_token=end, pad_token=end
    )
    processor = transformers.Idefics3Processor(
        transformers.Idefics3ImageProcessor(
            size={"longest_edge": 4 * 56}, max_image_size={"longest_edge": 56}
        ),
        tokenizer,
        image_seq_len=4,
        chat_template=templates.IDEFICS3,
    )
    config = transformers.Idefics3Config(
        vision_config={"model_type": "idefics3_vision", **_SHUFFLED},
        text_config={"model_type": "llama", **_text(tokenizer, rope_theta=500000.0)},
        image_token_id=_id(tokenizer, "<image>"),
        scale_factor=2,
    )
    model = transformers.Idefics3ForConditionalGeneration(config)
    _save(folder, processor, model, [end, "<end_of_utterance>"])


def qwen2_5_vl(folder: Path) -> None:
    """Qwen2.5-VL: two frames make one of 6 x 6 patches, merged into 3 x 3, in windows of 2 x 2."""
    tokenizer = qwen_tokenizer(templates.QWEN_VL_MARKS)
    normal = {"patch_size": 14, "temporal_patch_size": 2, "merge_size": 2}
    size = {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 16384}
    processor = transformers.Qwen2_5_VLProcessor(
        transformers.Qwen2VLImageProcessor(size=size, **normal),
        tokenizer,
        transformers.Qwen2VLVideoProcessor(size=size, **normal),
        chat_template=templates.QWEN2_5_VL,
    )
    config = transformers.Qwen2_5_VLConfig(
        vision_config={
            "depth": 3,
            "hidden_size": 32,
            "out_hidden_size": 64,
            "intermediate_size": 48,
            "num_heads": 2,
            "patch_size": 14,
            "window_size": 56,
            "fullatt_block_indexes": [2],
            "tokens_per_second": 2,
        },
        text_config=_text(tokenizer, rope_theta=1e6, mrope_section=[2, 3, 3]),
        **_vision_ids(tokenizer),
    )
    model = transformers.Qwen2_5_VLForConditionalGeneration(config)
    _save(folder, processor, model, ["<|im_end|>", "<|endoftext|>"], picture_size=84)


def qwen3_vl(folder: Path) -> None:
    """Qwen3-VL: as Qwen2.5-VL, with times between frames and features for three layers."""
    tokenizer = qwen_tokenizer(templates.QWEN_VL_MARKS)
    normal = {
        "patch_size": 16,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    processor = transformers.Qwen3VLProcessor(
        transformers.Qwen2VLImageProcessor(
            size={"shortest_edge": 256**2, "longest_edge": 4096**2}, **normal
        ),
        tokenizer,
        transformers.Qwen3VLVideoProcessor(
            size={"shortest_edge": 64**2, "longest_edge": 24576 * 32**2}, **normal
        ),
        chat_template=templates.QWEN3_VL,
    )
    config = transformers.Qwen3VLConfig(
        vision_config={
            "depth": 4,
            "hidden_size": 32,
            "out_hidden_size": 64,
            "intermediate_size": 48,
            "num_heads": 2,
            "patch_size": 16,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0, 1, 2],
        },
        text_config={
            **_text(tokenizer, rope_theta=5e6, mrope_section=[4, 2, 2], mrope_interleaved=True),
            "num_hidden_layers": 4,
            "head_dim": 16,
        },
        **_vision_ids(tokenizer),
    )
    model = transformers.Qwen3VLForConditionalGeneration(config)
    _save(folder, processor, model, ["<|im_end|>", "<|endoftext|>"], picture_size=96)


#: What writes a checkpoint into a folder, by transformers' names of the model types.
FAMILIES: dict[str, Callable[..., None]] = {
    "llava_onevision": llava_onevision,
    "smolvlm": smolvlm,
    "idefics3": idefics3,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
}


def _backend(pre_tokenizer: Any, first: Sequence[str] = ()) -> Tokenizer:
    """A byte-level BPE of a few sentences; special tokens ``first`` come before its words."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizer, decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(first),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_SENTENCES, trainer)
    return tokenizer


def qwen_tokenizer(marks: Sequence[str]) -> Any:
    """A tokenizer of Qwen2's kind with a few hundred words, to which ``marks`` are added."""
    backend = _backend(
        pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    )
    trained = json.loads(backend.to_str())["model"]
    tokenizer = transformers.Qwen2Tokenizer(
        vocab=trained["vocab"],
        merges=[tuple(pair) for pair in trained["merges"]],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
    )
    tokenizer.add_tokens(["<|im_start|>", *marks], special_tokens=True)
    return tokenizer


def _id(tokenizer: Any, token: str) -> int:
    return int(tokenizer.get_vocab()[token])


def _vision_ids(tokenizer: Any) -> dict[str, int]:
    marks = {"image": "image_pad", "video": "video_pad"}
    marks |= {name: name for name in ("vision_start", "vision_end")}
    return {f"{name}_token_id": _id(tokenizer, f"<|{mark}|>") for name, mark in marks.items()}


def _text(tokenizer: Any, **rope: Any) -> dict[str, Any]:
    """The config of a language model, with more places in its vocabulary than tokens."""
    return {
        **_TEXT,
        "vocab_size": -(-(len(tokenizer) + 1) // 64) * 64,
        "rope_parameters": {"rope_type": "default", **rope},
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _save(folder: Path, processor: Any, model: Any, ends: Sequence[str], **longreel: Any) -> None:
    """Give ``model`` its weights and write everything; its config says how it is used.

    No weight keeps the zero or one that it starts with: whatever left it out would not be seen.
    An output layer of its own makes it say plain text, and what ends answers.
    """
    tokenizer, head = processor.tokenizer, model.get_output_embeddings()
    tied = model.config.tie_word_embeddings
    stop = [_id(tokenizer, token) for token in ends]
    generator = torch.Generator().manual_seed(0)
    # Large embeddings that are also the output layer echo what was read.
    spread = 0.2 if tied else 1.0
    with torch.no_grad():
        for name, weight in model.named_parameters():
            random = torch.randn(weight.shape, generator=generator)
            if isinstance(model.get_submodule(name.rpartition(".")[0]), nn.Embedding):
                weight.copy_(spread * random)
            elif weight.ndim > 1:
                weight.copy_(1.5 * random / weight[0].numel() ** 0.5)
            else:
                weight.copy_(0.2 * random + (1 if name.endswith("weight") else 0))
        for token in set() if tied else set(range(head.out_features)) - set(stop):
            text = tokenizer.decode([token], skip_special_tokens=True)
            if not (text and text.isascii() and text.isprintable()):
                head.weight[token] = 0
    model.generation_config = transformers.GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=stop if len(stop) > 1 else stop[0],
        pad_token_id=tokenizer.pad_token_id,
    )
    if longreel:
        model.config.longreel = longreel
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
