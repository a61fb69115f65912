"""Parts that checkpoints are assembled from, made small and at random, for tests."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from mod.assemble import Assembly
from mod.checkpoint import find_checkpoint
from mod.decoder import Stream
from mod.loading import load
from mod.modeling import VideoLLMMoD
from mod.world.dialogues import corpus

VOCABULARY = 400
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}"
#: VideoLLM-online's, whose adapter also holds a connector.
LORA_MODULES = "model.*(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)|lm_head$"


def make_tokenizer(vocab_size: int = VOCABULARY, **marks: Any) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        chat_template=TEMPLATE,
        **{"bos_token": "<s>", "eos_token": "</s>", **marks},
    )


def make_lm(folder: Path, config: Any, dtype: torch.dtype = torch.float32, **options: Any) -> Path:
    """A language model with random weights and biases, its tokenizer and its template."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    model.generation_config.temperature = 0.6
    model.generation_config.do_sample = True
    model.to(dtype).save_pretrained(folder, **options)
    make_tokenizer(min(VOCABULARY, config.vocab_size)).save_pretrained(folder)
    return folder


def make_lora(
    folder: Path,
    lm: Path,
    vision_size: int | None = 24,
    modules: str = LORA_MODULES,
    **options: Any,
) -> Path:
    """A LoRA on ``lm`` as VideoLLM-online trains it, with its connector for ``vision_size``."""
    torch.manual_seed(2)
    model = AutoModelForCausalLM.from_pretrained(lm)
    if vision_size:
        hidden = model.config.hidden_size
        model.connector = nn.Sequential(
            nn.Linear(vision_size, hidden), nn.GELU(), nn.Linear(hidden, hidden)
        )
    config = LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=modules,
        lora_dropout=0.05,
        task_type="CAUSAL_LM",
        modules_to_save=["connector"] if vision_size else None,
        **options,
    )
    adapted = get_peft_model(model, config)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name or "connector" in name:
            nn.init.normal_(parameter, std=0.2)
    adapted.save_pretrained(folder, save_embedding_layers="lm_head" in modules)
    return folder


def without(folder: Path, source: Path, weight: str) -> Path:
    """A copy of a model's folder that lacks one weight."""
    shutil.copytree(source, folder)
    tensors = load_file(folder / "model.safetensors")
    (name,) = [name for name in tensors if name.endswith(weight)]
    del tensors[name]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def loaded(assembly: Assembly) -> VideoLLMMoD:
    return load(find_checkpoint(str(assembly.output)))[0]


def text_logits(model: VideoLLMMoD, ids: Tensor) -> Tensor:
    nowhere = torch.zeros(0, dtype=torch.long)
    x = model.embed_text(ids)
    return model.logits(model(Stream(x, torch.arange(len(ids)), nowhere, [len(ids)])))


def some_ids(n: int = 40) -> Tensor:
    return torch.randint(0, VOCABULARY, (n,), generator=torch.Generator().manual_seed(3))
