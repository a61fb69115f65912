"""Parts and options that do not fit are refused in one line, and nothing is left behind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    GPT2Config,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    T5Config,
)

from longreel.errors import UsageError
from mod.assemble import Assembly, assemble
from tests.mod.assembly import VOCABULARY, make_lm, make_lora, without
from tests.mod.small import TEXT, small_config


def _other(folder: Path, config: Any, **changes: Any) -> Path:
    """A folder with nothing but a config."""
    config.save_pretrained(folder)
    if changes:
        fields = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**fields, **changes}))
    return folder


def _cut(folder: Path, source: Path) -> Path:
    shutil.copytree(source, folder)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    return folder


def _lone(folder: Path, source: Path, *gone: str) -> Path:
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns(*gone))
    return folder


def _badly_spoken(folder: Path, source: Path) -> Path:
    shutil.copytree(source, folder)
    (folder / "tokenizer.json").write_text("{}")
    return folder


def _lora_with(folder: Path, source: Path, **tensors: Tensor | None) -> Path:
    shutil.copytree(source, folder)
    file = folder / "adapter_model.safetensors"
    mixed = {**load_file(file), **{k.replace("__", "."): v for k, v in tensors.items()}}
    save_file({k: v for k, v in mixed.items() if v is not None}, file)
    return folder


_GPT2 = GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=2)
_Q = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
_DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
#: From the folders of good parts and one for bad ones to what is asked for instead.
_Spoil = Callable[[Path, Path], dict[str, Any]]
REFUSED: dict[str, tuple[_Spoil, str]] = {
    "no vision folder": (
        lambda p, t: {"vision": t / "nowhere"},
        r"no vision tower at '.*nowhere': there is no such folder",
    ),
    "no language model folder": (
        lambda p, t: {"lm": t / "nowhere"},
        r"no language model at '.*nowhere': there is no such folder",
    ),
    "no LoRA folder": (
        lambda p, t: {"lora": t / "nowhere"},
        r"no LoRA at '.*nowhere': there is no such folder",
    ),
    "no config": (
        lambda p, t: {"lm": _lone(t / "x", p / "llama", "config.json")},
        r"the language model at '.*x' cannot be loaded: .*config.json",
    ),
    "not SigLIP": (
        lambda p, t: {"vision": p / "llama"},
        r"the vision tower at '.*' is a 'llama', not a SigLIP vision model",
    ),
    "a tower that lacks a weight": (
        lambda p, t: {"vision": without(t / "x", p / "siglip", "vision_model.post_layernorm.bias")},
        r"the vision tower at '.*' lacks the weight 'post_layernorm.bias'",
    ),
    "a tower without its head": (
        lambda p, t: {
            "vision": _other(t / "x", small_config().vision_config, vision_use_head=False)
        },
        r"has no pooling head",
    ),
    "an unknown type": (
        lambda p, t: {"lm": _other(t / "x", LlamaConfig(), model_type="bllama")},
        r"the language model at '.*' cannot be loaded: .*bllama",
    ),
    "an encoder-decoder": (
        lambda p, t: {"lm": _other(t / "x", T5Config())},
        r"is a 't5', not a decoder-only language model",
    ),
    "a sliding window": (
        lambda p, t: {"lm": _other(t / "x", MistralConfig())},
        r"do not attend to the whole stream \(sliding_window 4096\)",
    ),
    "sliding layers": (
        lambda p, t: {
            "lm": _other(t / "x", Qwen2Config(use_sliding_window=True, max_window_layers=2))
        },
        r"do not attend to the whole stream \(full_attention, sliding_attention\)",
    ),
    "rope that changes with length": (
        lambda p, t: {"lm": _other(t / "x", LlamaConfig(**TEXT, rope_parameters=_DYNAMIC))},
        r"the language model at '.*x' has rotary positions that change with length \(dynamic\)",
    ),
    "quantized": (
        lambda p, t: {
            "lm": _other(t / "x", LlamaConfig(), quantization_config={"quant_method": "awq"})
        },
        r"is quantized",
    ),
    "a language model that lacks a weight": (
        lambda p, t: {"lm": without(t / "x", p / "llama", "layers.2.mlp.up_proj.weight")},
        r"lacks the weight 'model.layers.2.mlp.up_proj.weight'",
    ),
    "a cut weight file": (
        lambda p, t: {"lm": _cut(t / "x", p / "llama")},
        r"the language model at '.*' cannot be loaded",
    ),
    "no weight file": (
        lambda p, t: {"lm": _lone(t / "x", p / "llama", "*.safetensors")},
        r"the language model at '.*' cannot be loaded: .*model.safetensors",
    ),
    "no tokenizer": (
        lambda p, t: {"lm": _lone(t / "x", p / "llama", "tokenizer*")},
        r"the language model at '.*' comes without its tokenizer",
    ),
    "a broken tokenizer": (
        lambda p, t: {"lm": _badly_spoken(t / "x", p / "llama")},
        r"the tokenizer at '.*' cannot be loaded",
    ),
    "layers that cannot run alone": (
        lambda p, t: {"lm": make_lm(t / "x", _GPT2)},
        r"model type 'gpt2' is not supported",
    ),
    "more than its layers": (
        lambda p, t: {"lm": make_lm(t / "x", GraniteConfig(**TEXT, embedding_multiplier=3.0))},
        r"model type 'granite' is not supported: .*other logits",
    ),
    "not a LoRA": (
        lambda p, t: {"lora": p / "llama"},
        r"the LoRA at '.*' cannot be loaded: .*adapter_config.json",
    ),
    "a LoRA of another size": (
        lambda p, t: {
            "lora": make_lora(
                t / "x", make_lm(t / "y", LlamaConfig(**{**TEXT, "hidden_size": 64})), None
            )
        },
        r"the LoRA at '.*' does not fit the language model: 'base_model.model.lm_head"
        r".base_layer.weight' has shape \(400, 64\), not \(400, 32\)",
    ),
    "a LoRA of another depth": (
        lambda p, t: {
            "lora": make_lora(
                t / "x", make_lm(t / "y", LlamaConfig(**{**TEXT, "num_hidden_layers": 2})), None
            )
        },
        r"does not fit the language model: it lacks 'base_model.model.model.layers.2.mlp",
    ),
    "a LoRA of another family": (
        lambda p, t: {
            "lora": make_lora(
                t / "x",
                make_lm(t / "y", _GPT2),
                None,
                ".*c_attn",
                fan_in_fan_out=True,
            )
        },
        r"no place for 'base_model.model.transformer.h.0.attn.c_attn.lora_A.weight'",
    ),
    "a LoRA with a tensor too many": (
        lambda p, t: {
            "lora": _lora_with(t / "x", p / "lora", zz__lora_A__weight=torch.zeros(4, 32))
        },
        r"no place for 'zz.lora_A.weight'",
    ),
    "a LoRA of another rank": (
        lambda p, t: {"lora": _lora_with(t / "x", p / "lora", **{_Q: torch.zeros(3, 32)})},
        r"q_proj.lora_A.weight' has shape \(3, 32\), not \(4, 32\)",
    ),
    "a connector of another tower": (
        lambda p, t: {"lora": make_lora(t / "x", p / "llama", 16)},
        r"'up.weight' has shape \(32, 16\), this vision tower and language model need \(32, 24\)",
    ),
    "half a connector": (
        lambda p, t: {
            "lora": _lora_with(t / "x", p / "lora", base_model__model__connector__2__bias=None)
        },
        r"the connector at '.*' lacks 'down.bias'",
    ),
    "layers that are none": (
        lambda p, t: {"mod_layers": "every-third"},
        r"mod-layers must be one of interleaved, .*, or layers such as 1,3,5, not 'every-third'",
    ),
    "layers that do not exist": (
        lambda p, t: {"mod_layers": "1,9"},
        r"mod_layers names layer 9; the model has 4",
    ),
    "ratios that are none": (
        lambda p, t: {"keep_ratios": "0.5,half"},
        r"keep-ratios must be numbers such as 0.5,0.2, not '0.5,half'",
    ),
    "a ratio too many": (
        lambda p, t: {"keep_ratios": "0.5,0.2,0.1"},
        r"keep_ratios has 3 entries for 2 mod_layers",
    ),
    "a schedule unheard of": (
        lambda p, t: {"keep_schedule": "rising"},
        r"keep-schedule must be one of constant, shifted_cosine, not 'rising'",
    ),
    "a keep ratio of nothing": (lambda p, t: {"keep_ratio": 0.0}, r"keep_ratio must"),
    "a router unheard of": (lambda p, t: {"router": "best"}, r"router must be one of"),
    "a grid too fine": (lambda p, t: {"pool_grid": 4}, r"pool_grid 4 is finer"),
    "no frames": (lambda p, t: {"fps": 0.0}, r"fps must be above 0"),
    "silence that ends turns": (
        lambda p, t: {"silence_token": "</s>"},
        r"the silence token '</s>' already marks something else",
    ),
    "a shard size without a unit": (
        lambda p, t: {"max_shard_size": "5"},
        r"max-shard-size must be like 5GB, not '5'",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_one_line_and_leaves_nothing(
    case: str, assembly: Assembly, parts: Path, tmp_path: Path
) -> None:
    """Guards against a traceback after minutes of loading, and half a checkpoint that is served
    later.
    """
    spoil, message = REFUSED[case]
    spoiled = replace(assembly, **spoil(parts, tmp_path))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UsageError, match=message) as refused:
        assemble(spoiled)
    assert "\n" not in str(refused.value)
    assert sorted(tmp_path.iterdir()) == before
