"""Tiny checkpoints of open video models in their published layout, and what transformers says.

Classes, processors, chat templates and files are the real ones; sizes are not, and weights are
random: large enough that answers vary with the frames and with the question.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
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

_LLAVA_ONEVISION = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + ' '}}"
    "{# Render all images first #}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}"
    "{{ '<image>' }}{% endfor %}"
    "{# Render all video then #}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'video') %}"
    "{{ '<video>' }}{% endfor %}"
    "{# Render all text next #}{% if message['role'] != 'assistant' %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ '\n' + content['text'] }}{% endfor %}{% else %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% generation %}{{ '\n' + content['text'] }}{% endgeneration %}{% endfor %}{% endif %}"
    "{{'<|im_end|>'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_SMOLVLM = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
_IDEFICS3 = _SMOLVLM.replace("<|im_start|>", "<|begin_of_text|>").replace(
    "{{message['role'] | capitalize}}", "{{message['role'].capitalize()}}"
)
_QWEN2_5_VL = (
    "{% set image_count = namespace(value=0) %}{% set video_count = namespace(value=0) %}"
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}"
    "{{ message['content'] }}<|im_end|>\n{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}"
    "{% set image_count.value = image_count.value + 1 %}"
    "{% if add_vision_id %}Picture {{ image_count.value }}: {% endif %}"
    "<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif content['type'] == 'video' or 'video' in content %}"
    "{% set video_count.value = video_count.value + 1 %}"
    "{% if add_vision_id %}Video {{ video_count.value }}: {% endif %}"
    "<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}"
    "<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
#: Without what the published one has for tools.
_QWEN3_VL = """\
{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].content is string %}
        {{- messages[0].content }}
    {%- else %}
        {%- for content in messages[0].content %}
            {%- if 'text' in content %}
                {{- content.text }}
            {%- endif %}
        {%- endfor %}
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endif %}
{%- set image_count = namespace(value=0) %}
{%- set video_count = namespace(value=0) %}
{%- for message in messages %}
    {%- if message.role == "user" %}
        {{- '<|im_start|>' + message.role + '\\n' }}
        {%- if message.content is string %}
            {{- message.content }}
        {%- else %}
            {%- for content in message.content %}
                {%- if content.type == 'image' or 'image' in content or 'image_url' in content %}
                    {%- set image_count.value = image_count.value + 1 %}
                    {%- if add_vision_id %}Picture {{ image_count.value }}: {% endif -%}
                    <|vision_start|><|image_pad|><|vision_end|>
                {%- elif content.type == 'video' or 'video' in content %}
                    {%- set video_count.value = video_count.value + 1 %}
                    {%- if add_vision_id %}Video {{ video_count.value }}: {% endif -%}
                    <|vision_start|><|video_pad|><|vision_end|>
                {%- elif 'text' in content %}
                    {{- content.text }}
                {%- endif %}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role + '\\n' }}
        {%- if message.content is string %}
            {{- message.content }}
        {%- else %}
            {%- for content_item in message.content %}
                {%- if 'text' in content_item %}
                    {{- content_item.text }}
                {%- endif %}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

#: The marks of Qwen2.5-VL and Qwen3-VL.
_QWEN_VL = (
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
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


def complete_torchvision() -> None:
    """Let ``torchvision`` be imported beside a PyTorch that it was not built for.

    The index has it built for CUDA. A CPU build of PyTorch cannot load the operators compiled in
    it, and still it registers what two of them do to shapes, which fails where nothing has
    declared them. What processors take from it, its transforms, needs neither.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        for name in ("nms", "qnms"):
            schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            torch.library.define(f"torchvision::{name}", schema)
        importlib.import_module("torchvision")


# transformers imports it when a processor is first looked up.
complete_torchvision()


def llava_onevision(folder: Path, image_size: int = 56, *, tied: bool = False) -> None:
    """LLaVA-OneVision: patches of 14 pixels, pooled by two.

    Args:
        image_size: 76 makes an odd grid with pixels left over, as 384 does in the published ones.
        tied: without an output layer of its own, as the 0.5B is.
    """
    tokenizer = _qwen_tokenizer(["<image>", "<video>"])
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
        chat_template=_LLAVA_ONEVISION,
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
        chat_template=_SMOLVLM,
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
        chat_template=_IDEFICS3,
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
    tokenizer = _qwen_tokenizer(_QWEN_VL)
    normal = {"patch_size": 14, "temporal_patch_size": 2, "merge_size": 2}
    size = {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 16384}
    processor = transformers.Qwen2_5_VLProcessor(
        transformers.Qwen2VLImageProcessor(size=size, **normal),
        tokenizer,
        transformers.Qwen2VLVideoProcessor(size=size, **normal),
        chat_template=_QWEN2_5_VL,
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
    tokenizer = _qwen_tokenizer(_QWEN_VL)
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
        chat_template=_QWEN3_VL,
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


def frames_of(n: int, side: int, seed: int) -> NDArray[np.uint8]:
    """``n`` pictures (n, side, side, 3) of 7 x 7 fields; a third of them change each time."""
    random = np.random.default_rng(seed)
    fields = random.integers(0, 256, (7, 7, 3))
    where = np.arange(side) * 7 // side
    pictures = []
    for _ in range(n):
        pictures.append(fields[where][:, where])
        changes = random.random((7, 7, 1)) < 1 / 3
        fields = np.where(changes, random.integers(0, 256, (7, 7, 3)), fields)
    return np.stack(pictures).astype(np.uint8)


def side_of(folder: Path) -> int:
    """Side of the square pictures that ``reference`` shows without resizing, in pixels."""
    processor = transformers.AutoProcessor.from_pretrained(folder)
    if hasattr(processor.image_processor, "max_image_size"):
        return int(processor.image_processor.max_image_size["longest_edge"])
    seen = processor.video_processor
    if hasattr(seen, "merge_size"):
        return int(3 * seen.patch_size * seen.merge_size)
    return int(seen.size["height"])


def reference(
    folder: Path,
    frames: NDArray[np.uint8],
    question: str,
    fps: float,
    max_new_tokens: int = 24,
    quantize: str | None = None,
) -> list[int]:
    """Greedy tokens of transformers' ``generate``, the one that ends them included if it comes.

    Args:
        frames: (n, side, side, 3), all that there are of a video.
        fps: how many of them a second has.
        quantize: bits of the decoder's linear maps, all but those of tower, connector and head.
    """
    inputs = _inputs(folder, frames, question, fps)
    options: dict[str, Any] = {}
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder).eval()
    if quantize:
        names = [name for name, part in model.named_modules() if isinstance(part, nn.Linear)]
        apart = [n for n in names if "visi" in n or "visual" in n or ".layers." not in n]
        whole = [f"{name}$" for name in apart]
        config = transformers.QuantoConfig(weights=quantize, modules_to_not_convert=whole)
        options = {"quantization_config": config}
        model = transformers.AutoModelForImageTextToText.from_pretrained(folder, **options).eval()
    tokens = model.generate(**inputs, do_sample=False, max_new_tokens=max_new_tokens)
    answer: list[int] = tokens[0, inputs["input_ids"].shape[1] :].tolist()
    return answer


def loss(
    folder: Path, frames: NDArray[np.uint8], question: str, answer: Sequence[int], fps: float
) -> float:
    """Mean negative log-likelihood that transformers gives the tokens of an answer."""
    inputs = _inputs(folder, frames, question, fps)
    more = torch.tensor([list(answer)])
    n = inputs["input_ids"].shape[1]
    inputs["input_ids"] = torch.cat([inputs["input_ids"], more], dim=1)
    for name in ("attention_mask", "mm_token_type_ids"):
        if name in inputs:
            rest = torch.full_like(more, int(name == "attention_mask"))
            inputs[name] = torch.cat([inputs[name], rest.to(inputs[name].dtype)], dim=1)
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder).eval()
    with torch.inference_mode():
        logits = model(**inputs).logits[0, n - 1 : -1]
    return float(nn.functional.cross_entropy(logits.float(), more[0]))


def prompt_ids(folder: Path, frames: NDArray[np.uint8], question: str, fps: float) -> list[int]:
    """The ids that ``reference`` starts from; see there."""
    ids: list[int] = _inputs(folder, frames, question, fps)["input_ids"][0].tolist()
    return ids


def _inputs(folder: Path, frames: NDArray[np.uint8], question: str, fps: float) -> Any:
    processor = transformers.AutoProcessor.from_pretrained(folder)
    n, height, width, _ = frames.shape
    shown: list[dict[str, Any]]
    if hasattr(processor, "video_processor"):
        shown = [{"type": "video", "video": frames}]
        options: dict[str, Any] = {
            "do_sample_frames": False,
            "video_metadata": [
                {
                    "total_num_frames": n,
                    "fps": fps,
                    "duration": n / fps,
                    "frames_indices": list(range(n)),
                    "height": height,
                    "width": width,
                }
            ],
        }
    else:
        shown = [{"type": "image", "image": frame} for frame in frames]
        # As published, it enlarges pictures by four, to split them.
        side = processor.image_processor.max_image_size
        options = {"do_image_splitting": False, "size": dict(side)}
    return processor.apply_chat_template(
        [{"role": "user", "content": [*shown, {"type": "text", "text": question}]}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs=options,
    )


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


def _qwen_tokenizer(marks: Sequence[str]) -> Any:
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
