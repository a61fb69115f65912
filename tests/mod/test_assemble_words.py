"""The tokenizer of an assembled checkpoint: the stream's marks beside the model's own."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from longreel.errors import UsageError
from mod.assemble import Assembly, assemble
from mod.checkpoint import find_checkpoint
from mod.layout import ONLINE_INSTRUCTION, MarkedLayout, OnlineLayout
from mod.loading import load
from tests.mod.assembly import TEMPLATE, VOCABULARY, loaded, make_lm, make_lora, make_tokenizer
from tests.mod.small import TEXT


@pytest.mark.slow
@torch.no_grad()
def test_the_tokenizer_gains_marks_and_the_matrix_only_the_rows_it_lacks(
    assembly: Assembly, parts: Path
) -> None:
    """Guards against embeddings of the language model that are moved or lost for the new marks."""
    assemble(assembly)
    model, layout = load(find_checkpoint(str(assembly.output)))
    assert isinstance(layout, MarkedLayout)
    assert (layout.begin, layout.end) == (0, 1), "its own"
    assert {layout.silence, layout.user, layout.assistant} == {400, 401, 402}
    plain = AutoTokenizer.from_pretrained(parts / "llama")
    text = "Cut to a dark blue scene, <|silence|>."
    assert layout.encode(text) == plain.encode(text), "marks in a text stay text"
    assert layout.decode([layout.silence, *layout.encode(text)]) == text
    assert layout.tokenizer.chat_template == TEMPLATE
    chat = [{"role": "user", "content": "hi"}]
    assert layout.tokenizer.apply_chat_template(chat, tokenize=False) == "<user>hi</s>"
    generation = json.loads((assembly.output / "generation_config.json").read_text())
    assert generation["temperature"] == 0.6
    for matrix in (model.get_input_embeddings().weight, model.language_model.lm_head.weight):
        assert matrix.shape[0] == 403
        assert torch.allclose(matrix[400:], matrix[:400].mean(0).expand(3, -1), atol=1e-6)

    roomy = make_lm(assembly.output.parent / "roomy", LlamaConfig(**{**TEXT, "vocab_size": 512}))
    made = replace(assembly, lm=roomy, output=assembly.output.with_name("roomy-made"))
    assemble(made)
    model = loaded(made)
    theirs = AutoModelForCausalLM.from_pretrained(roomy)
    assert torch.equal(model.get_input_embeddings().weight, theirs.model.embed_tokens.weight)


@pytest.mark.slow
def test_silence_is_what_the_adapter_has_learned(assembly: Assembly, parts: Path) -> None:
    """Guards against a model that is silent by a token which it never learned."""
    comma = AutoTokenizer.from_pretrained(parts / "llama").convert_tokens_to_ids(",")
    for lora, token, expected in (
        ("lora", None, comma),
        ("plain-lora", None, VOCABULARY),
        ("lora", "<|quiet|>", VOCABULARY),
    ):
        made = replace(
            assembly, lora=parts / lora, silence_token=token, output=assembly.output / f"{token}"
        )
        assemble(replace(made, force=True))
        _, layout = load(find_checkpoint(str(made.output)))
        assert layout.silence == expected


@pytest.mark.parametrize(
    ("marks", "begin", "end"),
    [
        ({"bos_token": None}, "<|begin|>", "</s>"),
        ({"bos_token": None, "unk_token": "</s>"}, "<|begin|>", "<|end|>"),
        ({"bos_token": "</s>"}, "</s>", "</s>"),
        ({"extra_special_tokens": ["<|user|>", "<s>"]}, "<s>", "</s>"),
    ],
)
def test_marks_are_the_language_models_own_where_it_has_them(
    marks: dict[str, Any], begin: str, end: str, parts: Path, tmp_path: Path
) -> None:
    """Qwen's tokenizers have no bos, and for some of them eos is the unknown token."""
    lm = shutil.copytree(parts / "qwen3", tmp_path / "lm")
    plain = make_tokenizer(**marks)
    plain.save_pretrained(lm)
    assemble(Assembly(parts / "vision", lm, tmp_path / "made"))
    model, layout = load(find_checkpoint(str(tmp_path / "made")))
    assert (model.config.begin_token, model.config.end_token) == (begin, end)
    assert layout.tokenizer.convert_ids_to_tokens([layout.begin, layout.end]) == [begin, end]
    assert set(plain.all_special_tokens) <= set(layout.tokenizer.all_special_tokens)
    used = {begin, end, "<|silence|>", "<|user|>", "<|assistant|>"}
    assert len(layout.tokenizer) == len({*plain.get_vocab(), *used})


@pytest.mark.slow
def test_videollm_onlines_adapter_brings_its_layout(
    assembly: Assembly, parts: Path, tmp_path: Path
) -> None:
    """Guards against a stream that its adapter was not taught."""
    lora = make_lora(tmp_path / "online", parts / "llama")
    assemble(replace(assembly, lora=lora))
    model, layout = load(find_checkpoint(str(assembly.output)))
    assert isinstance(layout, OnlineLayout)
    assert model.config.instruction == ONLINE_INSTRUCTION
    assert layout.decode([layout.silence]) == ","
    marked = replace(assembly, lora=lora, layout="marks", output=tmp_path / "marks")
    assemble(marked)
    _, layout = load(find_checkpoint(str(marked.output)))
    assert isinstance(layout, MarkedLayout)
    with pytest.raises(UsageError, match="layout must be one of marks, online, not 'mine'"):
        assemble(replace(marked, layout="mine", force=True))
