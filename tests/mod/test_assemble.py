"""Assembling a checkpoint: equal to its parts, whole or not at all, and plain refusals."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipConfig,
    SiglipModel,
    SiglipTextConfig,
    T5Config,
)

from longreel.cli import main
from longreel.errors import LongreelError, UsageError
from mod.assemble import Assembly, assemble
from mod.checkpoint import find_checkpoint
from mod.config import VideoLLMMoDConfig
from mod.cost import kv_bytes
from mod.loading import load
from mod.modeling import Connector, Stream, VideoLLMMoD, frames_before
from mod.session import Session
from mod.world.dialogues import corpus
from tests.mod.small import FAMILIES, small_config, some_frames

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
    folder: Path, lm: Path, vision_size: int | None = 24, modules: str = LORA_MODULES
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
    )
    adapted = get_peft_model(model, config)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name or "connector" in name:
            nn.init.normal_(parameter, std=0.2)
    adapted.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of every part: ``vision``, ``siglip``, each family, ``lora``, ``plain-lora``."""
    root = tmp_path_factory.mktemp("parts")
    vision_config = small_config().vision_config
    torch.manual_seed(0)
    siglip = SiglipModel(
        SiglipConfig(
            vision_config=vision_config.to_dict(),
            text_config=SiglipTextConfig(
                vocab_size=20,
                hidden_size=24,
                intermediate_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
            ).to_dict(),
        )
    )
    siglip.save_pretrained(root / "siglip")
    siglip.vision_model.save_pretrained(root / "vision")
    for family in FAMILIES:
        make_lm(root / family, small_config(family).text_config)
    make_lora(root / "lora", root / "llama")
    make_lora(root / "plain-lora", root / "llama", None)
    return root


@pytest.fixture
def assembly(parts: Path, tmp_path: Path) -> Assembly:
    return Assembly(parts / "vision", parts / "llama", tmp_path / "made")


def loaded(assembly: Assembly) -> VideoLLMMoD:
    return load(find_checkpoint(str(assembly.output)))[0]


def text_logits(model: VideoLLMMoD, ids: Tensor) -> Tensor:
    nowhere = torch.zeros(0, dtype=torch.long)
    x = model.embed_text(ids)
    return model.logits(model(Stream(x, torch.arange(len(ids)), nowhere, [len(ids)])))


def some_ids(n: int = 40) -> Tensor:
    return torch.randint(0, VOCABULARY, (n,), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("with_lora", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_logits_are_those_of_the_language_model_with_its_lora(
    family: str, with_lora: bool, parts: Path, tmp_path: Path
) -> None:
    """Guards against weights lost, mixed up or changed on the way, in every family."""
    lora = make_lora(tmp_path / "lora", parts / family) if with_lora else None
    made = Assembly(parts / "siglip", parts / family, tmp_path / "made", lora, keep_ratio=1.0)
    assemble(made)
    theirs = AutoModelForCausalLM.from_pretrained(parts / family)
    if lora:
        # Loaded as VideoLLM-online does it, with a place for the connector, and not merged.
        theirs.connector = nn.Sequential(nn.Linear(24, 32), nn.GELU(), nn.Linear(32, 32))
        theirs = PeftModel.from_pretrained(theirs, lora)
    theirs.eval()
    expected = theirs(input_ids=some_ids()[None]).logits[0]
    model = loaded(made)
    got = text_logits(model, some_ids())
    assert got.shape[1] == len(AutoTokenizer.from_pretrained(made.output)) > VOCABULARY
    assert torch.allclose(got[:, :VOCABULARY], expected, atol=1e-4)

    frames = some_frames(3)
    tokens = model.encode_frames(frames, frames_before(frames, None))
    x = torch.cat([model.embed_text(some_ids(5)), tokens.flatten(0, 1)])
    starts = 5 + torch.arange(3) * 10
    got = model.logits(model(Stream(x, torch.arange(len(x)), starts, [len(x)])))
    expected = theirs(inputs_embeds=x[None]).logits[0]
    assert torch.allclose(got[:, :VOCABULARY], expected, atol=1e-4), "frames, every token kept"


@torch.no_grad()
def test_tower_and_connector_are_those_of_their_folders(assembly: Assembly, parts: Path) -> None:
    """Guards against a tower left at random, or a connector read in the wrong order."""
    frames = some_frames(2)
    theirs = SiglipModel.from_pretrained(parts / "siglip").eval()
    tensors = load_file(parts / "lora" / "adapter_model.safetensors")
    sequential = nn.Sequential(nn.Linear(24, 32), nn.GELU(), nn.Linear(32, 32))
    sequential.load_state_dict(
        {k.split("connector.")[1]: v for k, v in tensors.items() if "connector" in k}
    )
    pixels = frames.permute(0, 3, 1, 2) / 127.5 - 1.0
    seen = theirs.vision_model(pixel_values=pixels)
    for vision in ("siglip", "vision"):
        made = replace(
            assembly, vision=parts / vision, lora=parts / "lora", output=assembly.output / vision
        )
        lines = assemble(made)
        assert f"connector: from {parts / 'lora'}" in lines
        model = loaded(made)
        patches, pooled = model.see(frames, frames)
        assert torch.allclose(patches, seen.last_hidden_state, atol=1e-5)
        tokens = model.encode_frames(frames, frames)
        assert torch.allclose(tokens[:, 0], sequential(pooled), atol=1e-5)
        assert tokens.shape == (2, 10, 32)


def test_a_connector_of_our_own_names_is_read(assembly: Assembly, parts: Path) -> None:
    tensors = load_file(parts / "plain-lora" / "adapter_model.safetensors")
    lora = shutil.copytree(parts / "plain-lora", assembly.output.parent / "lora")
    connector = Connector(24, 32)
    tensors |= {f"base_model.model.connector.{k}": v for k, v in connector.state_dict().items()}
    save_file(tensors, lora / "adapter_model.safetensors")
    assemble(replace(assembly, lora=lora))
    for name, tensor in loaded(assembly).connector.state_dict().items():
        assert torch.equal(tensor, connector.state_dict()[name])


def test_without_a_connector_it_is_new_and_says_so(assembly: Assembly, parts: Path) -> None:
    for lora in (None, parts / "plain-lora"):
        made = replace(assembly, lora=lora, output=assembly.output / str(bool(lora)))
        assert assemble(made)[-1] == "connector: new, train it before use"
        weight = loaded(made).connector.up.weight
        assert 0.01 < float(weight.std()) < 0.03


def test_sharded_parts_and_result_keep_the_dtype(parts: Path, tmp_path: Path) -> None:
    config = small_config("qwen3").text_config
    lm = make_lm(tmp_path / "lm", config, torch.bfloat16, max_shard_size="20KB")
    assert len(list(lm.glob("model-*.safetensors"))) > 1
    made = Assembly(parts / "vision", lm, tmp_path / "made", max_shard_size="30KB")
    lines = assemble(made)
    shards = list(made.output.glob("model-*.safetensors"))
    assert len(shards) > 1
    modes = {file.stat().st_mode for file in (*shards, made.output / "config.json")}
    assert len(modes) == 1, "whoever may read the config may read the weights"
    again = VideoLLMMoD.from_pretrained(made.output)
    assert {parameter.dtype for parameter in again.parameters()} == {torch.bfloat16}
    assert any("in bfloat16" in line for line in lines)
    theirs = AutoModelForCausalLM.from_pretrained(lm).state_dict()
    ours = again.language_model.state_dict()
    for name, tensor in theirs.items():
        assert torch.equal(ours[name][: len(tensor)], tensor), name


def test_the_same_parts_give_the_same_bytes(assembly: Assembly) -> None:
    assemble(assembly)
    first = find_checkpoint(str(assembly.output)).revision
    torch.manual_seed(77)
    other = replace(assembly, output=assembly.output.with_name("other"))
    assemble(other)
    assert find_checkpoint(str(other.output)).revision == first


@torch.no_grad()
def test_the_tokenizer_gains_marks_and_the_matrix_only_the_rows_it_lacks(
    assembly: Assembly, parts: Path
) -> None:
    assemble(assembly)
    model, layout = load(find_checkpoint(str(assembly.output)))
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

    roomy = make_lm(assembly.output.parent / "roomy", LlamaConfig(**_small(vocab_size=512)))
    made = replace(assembly, lm=roomy, output=assembly.output.with_name("roomy-made"))
    assemble(made)
    model = loaded(made)
    theirs = AutoModelForCausalLM.from_pretrained(roomy)
    assert torch.equal(model.get_input_embeddings().weight, theirs.model.embed_tokens.weight)


def _small(**fields: Any) -> dict[str, Any]:
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        **fields,
    }


def test_silence_is_what_the_adapter_has_learned(assembly: Assembly, parts: Path) -> None:
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


@torch.no_grad()
def test_tied_embeddings_stay_tied_unless_the_lora_changes_one_of_them(
    parts: Path, tmp_path: Path
) -> None:
    """Guards against an update of the head that also reaches the input embeddings."""
    lm = make_lm(tmp_path / "lm", Qwen2Config(**_small(tie_word_embeddings=True)))
    layers_only = LORA_MODULES.removesuffix("|lm_head$")
    for name, modules, tied in (("head", LORA_MODULES, False), ("layers", layers_only, True)):
        lora = make_lora(tmp_path / name, lm, None, modules)
        made = Assembly(parts / "vision", lm, tmp_path / f"made-{name}", lora)
        assemble(made)
        model = loaded(made)
        assert model.config.tie_word_embeddings is tied
        head = model.language_model.lm_head.weight
        assert (head is model.get_input_embeddings().weight) is tied
        theirs = AutoModelForCausalLM.from_pretrained(lm)
        theirs = PeftModel.from_pretrained(theirs, lora).eval()
        expected = theirs(input_ids=some_ids()[None]).logits[0]
        assert torch.allclose(text_logits(model, some_ids())[:, :400], expected, atol=1e-4)


def test_the_bounded_router_weighs_every_kept_token_by_one(assembly: Assembly) -> None:
    assemble(replace(assembly, router="bounded", mod_layers="0,3", keep_ratio=0.3, fps=1.0))
    model = loaded(assembly)
    assert model.config.mod_layers == [0, 3]
    assert [model.config.tokens_in_layer(layer) for layer in range(4)] == [3, 10, 10, 3]
    assert all(not parameter.any() for parameter in model.routers.parameters())
    outcomes = Session(*load(find_checkpoint(str(assembly.output))), max_new_tokens=4).watch(
        some_frames(3)
    )
    assert len(outcomes) == 3


def test_the_description_says_what_was_made(assembly: Assembly) -> None:
    lines = assemble(assembly)
    model = loaded(assembly)
    said = "\n".join(lines)
    n_weights = sum(parameter.numel() for parameter in model.parameters())
    for words in (
        "llama, 4 layers of width 32, 403 tokens known, 3 of them new",
        "10 tokens (class token and 3x3 patches) and a word, 2 frames a second",
        "router bounded, 2 of 10 tokens kept in layers 1, 3",
        f"{n_weights:,} in float32",
    ):
        assert words in said
    dense = 7200 * 11 * 4 * 2 * 2 * 8 * 4
    mod = dense - 7200 * 8 * 2 * 2 * 2 * 8 * 4
    assert f"{dense / 2**20:.1f} MiB an hour of video dense, {mod / 2**20:.1f} MiB" in said
    lines = assemble(replace(assembly, router="none", force=True))
    assert "MoD:      none, every token runs in every layer" in lines


def test_kv_of_an_hour_is_the_papers_at_its_geometry() -> None:
    """Guards the printed figure: 9.67 GiB dense and 6.15 GiB with MoD, Llama-3-8B in bf16."""
    text = LlamaConfig(num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8)
    gib = [
        kv_bytes(VideoLLMMoDConfig(text_config=text, router=router), 7200, 7200, 2) / 2**30
        for router in ("none", "bounded")
    ]
    assert gib == pytest.approx([9.67, 6.15], abs=0.01)


def _other(folder: Path, config: Any, **changes: Any) -> Path:
    """A folder with nothing but a config."""
    config.save_pretrained(folder)
    if changes:
        fields = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**fields, **changes}))
    return folder


def _without(folder: Path, source: Path, weight: str) -> Path:
    shutil.copytree(source, folder)
    tensors = load_file(folder / "model.safetensors")
    (name,) = [name for name in tensors if name.endswith(weight)]
    del tensors[name]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
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


_Q = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
_Broken = Callable[[Assembly, Path, Path], Assembly]
REFUSED: dict[str, tuple[_Broken, str]] = {
    "no vision folder": (
        lambda a, p, t: replace(a, vision=t / "nowhere"),
        r"no vision tower at '.*nowhere': there is no such folder",
    ),
    "no language model folder": (
        lambda a, p, t: replace(a, lm=t / "nowhere"),
        r"no language model at '.*nowhere': there is no such folder",
    ),
    "no LoRA folder": (
        lambda a, p, t: replace(a, lora=t / "nowhere"),
        r"no LoRA at '.*nowhere': there is no such folder",
    ),
    "no config": (
        lambda a, p, t: replace(a, lm=_lone(t / "x", p / "llama", "config.json")),
        r"the language model at '.*x' cannot be loaded: .*config.json",
    ),
    "not SigLIP": (
        lambda a, p, t: replace(a, vision=p / "llama"),
        r"the vision tower at '.*' is a 'llama', not a SigLIP vision model",
    ),
    "a tower that lacks a weight": (
        lambda a, p, t: replace(
            a, vision=_without(t / "x", p / "siglip", "vision_model.post_layernorm.bias")
        ),
        r"the vision tower at '.*' lacks the weight 'post_layernorm.bias'",
    ),
    "a tower without its head": (
        lambda a, p, t: replace(
            a, vision=_other(t / "x", small_config().vision_config, vision_use_head=False)
        ),
        r"has no pooling head",
    ),
    "an unknown type": (
        lambda a, p, t: replace(a, lm=_other(t / "x", LlamaConfig(), model_type="bllama")),
        r"the language model at '.*' cannot be loaded: .*bllama",
    ),
    "an encoder-decoder": (
        lambda a, p, t: replace(a, lm=_other(t / "x", T5Config())),
        r"is a 't5', not a decoder-only language model",
    ),
    "a sliding window": (
        lambda a, p, t: replace(a, lm=_other(t / "x", MistralConfig())),
        r"do not attend to the whole stream \(sliding_window 4096\)",
    ),
    "sliding layers": (
        lambda a, p, t: replace(
            a,
            lm=_other(t / "x", Qwen2Config(use_sliding_window=True, max_window_layers=2)),
        ),
        r"do not attend to the whole stream \(full_attention, sliding_attention\)",
    ),
    "quantized": (
        lambda a, p, t: replace(
            a, lm=_other(t / "x", LlamaConfig(), quantization_config={"quant_method": "awq"})
        ),
        r"is quantized",
    ),
    "a language model that lacks a weight": (
        lambda a, p, t: replace(
            a, lm=_without(t / "x", p / "llama", "layers.2.mlp.up_proj.weight")
        ),
        r"lacks the weight 'model.layers.2.mlp.up_proj.weight'",
    ),
    "a cut weight file": (
        lambda a, p, t: replace(a, lm=_cut(t / "x", p / "llama")),
        r"the language model at '.*' cannot be loaded",
    ),
    "no weight file": (
        lambda a, p, t: replace(a, lm=_lone(t / "x", p / "llama", "*.safetensors")),
        r"the language model at '.*' cannot be loaded: .*model.safetensors",
    ),
    "no tokenizer": (
        lambda a, p, t: replace(a, lm=_lone(t / "x", p / "llama", "tokenizer*")),
        r"the language model at '.*' comes without its tokenizer",
    ),
    "a broken tokenizer": (
        lambda a, p, t: replace(a, lm=_badly_spoken(t / "x", p / "llama")),
        r"the tokenizer at '.*' cannot be loaded",
    ),
    "layers that cannot run alone": (
        lambda a, p, t: replace(
            a, lm=make_lm(t / "x", GPT2Config(vocab_size=400, n_embd=32, n_layer=2, n_head=2))
        ),
        r"model type 'gpt2' is not supported",
    ),
    "more than its layers": (
        lambda a, p, t: replace(
            a,
            lm=make_lm(t / "x", GraniteConfig(**_small(embedding_multiplier=3.0))),
        ),
        r"model type 'granite' is not supported: .*other logits",
    ),
    "not a LoRA": (
        lambda a, p, t: replace(a, lora=p / "llama"),
        r"the LoRA at '.*' cannot be loaded: .*adapter_config.json",
    ),
    "a LoRA of another size": (
        lambda a, p, t: replace(
            a,
            lora=make_lora(t / "x", make_lm(t / "y", LlamaConfig(**_small(hidden_size=64))), None),
        ),
        r"the LoRA at '.*' does not fit the language model: 'base_model.model.lm_head"
        r".base_layer.weight' has shape \(400, 64\), not \(400, 32\)",
    ),
    "a LoRA of another depth": (
        lambda a, p, t: replace(
            a, lora=make_lora(t / "x", make_lm(t / "y", LlamaConfig(**_small())), None)
        ),
        r"does not fit the language model: it lacks 'base_model.model.model.layers.2.mlp",
    ),
    "a LoRA of another family": (
        lambda a, p, t: replace(
            a,
            lora=make_lora(
                t / "x",
                make_lm(t / "y", GPT2Config(vocab_size=400, n_embd=32, n_layer=2, n_head=2)),
                None,
                ".*c_attn",
            ),
        ),
        r"no place for 'base_model.model.transformer.h.0.attn.c_attn.lora_A.weight'",
    ),
    "a LoRA with a tensor too many": (
        lambda a, p, t: replace(
            a, lora=_lora_with(t / "x", p / "lora", zz__lora_A__weight=torch.zeros(4, 32))
        ),
        r"no place for 'zz.lora_A.weight'",
    ),
    "a LoRA of another rank": (
        lambda a, p, t: replace(
            a, lora=_lora_with(t / "x", p / "lora", **{_Q: torch.zeros(3, 32)})
        ),
        r"q_proj.lora_A.weight' has shape \(3, 32\), not \(4, 32\)",
    ),
    "a connector of another tower": (
        lambda a, p, t: replace(a, lora=make_lora(t / "x", p / "llama", 16)),
        r"'up.weight' has shape \(32, 16\), this vision tower and language model need \(32, 24\)",
    ),
    "half a connector": (
        lambda a, p, t: replace(
            a,
            lora=_lora_with(t / "x", p / "lora", base_model__model__connector__2__bias=None),
        ),
        r"the connector at '.*' lacks 'down.bias'",
    ),
    "layers that are none": (
        lambda a, p, t: replace(a, mod_layers="every-third"),
        r"mod-layers must be one of interleaved, .*, or layers such as 1,3,5, not 'every-third'",
    ),
    "layers that do not exist": (
        lambda a, p, t: replace(a, mod_layers="1,9"),
        r"mod_layers names layer 9; the model has 4",
    ),
    "a keep ratio of nothing": (lambda a, p, t: replace(a, keep_ratio=0.0), r"keep_ratio must"),
    "a router unheard of": (lambda a, p, t: replace(a, router="best"), r"router must be one of"),
    "a grid too fine": (lambda a, p, t: replace(a, pool_grid=4), r"pool_grid 4 is finer"),
    "no frames": (lambda a, p, t: replace(a, fps=0.0), r"fps must be above 0"),
    "silence that ends turns": (
        lambda a, p, t: replace(a, silence_token="</s>"),
        r"the silence token '</s>' already marks something else",
    ),
    "a shard size without a unit": (
        lambda a, p, t: replace(a, max_shard_size="5"),
        r"max-shard-size must be like 5GB, not '5'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_one_line_and_leaves_nothing(
    case: str, assembly: Assembly, parts: Path, tmp_path: Path
) -> None:
    spoil, message = REFUSED[case]
    spoiled = spoil(assembly, parts, tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UsageError, match=message) as refused:
        assemble(spoiled)
    assert "\n" not in str(refused.value)
    assert sorted(tmp_path.iterdir()) == before


def test_what_is_there_is_replaced_only_by_force_and_only_if_a_checkpoint(
    assembly: Assembly, parts: Path
) -> None:
    """Guards against a lost folder: another's files, a part, or an old model and no new one."""
    output = assembly.output
    output.mkdir()
    assemble(assembly)
    first = find_checkpoint(str(output)).revision
    with pytest.raises(UsageError, match="is not empty; --force replaces it"):
        assemble(replace(assembly, keep_ratio=0.5))
    with pytest.raises(UsageError, match="lacks"):
        assemble(
            replace(
                assembly,
                lm=_without(output.parent / "x", parts / "llama", "model.norm.weight"),
                force=True,
            )
        )
    assert find_checkpoint(str(output)).revision == first
    (output / "stale").touch()
    assemble(replace(assembly, keep_ratio=0.5, force=True))
    assert loaded(assembly).config.keep_ratio == 0.5
    assert not (output / "stale").exists()
    assert sorted(path.name for path in output.parent.iterdir()) == ["made", "x"]

    files = output.parent / "files"
    files.mkdir()
    (files / "letter").touch()
    with pytest.raises(UsageError, match="is no checkpoint"):
        assemble(replace(assembly, output=files, force=True))
    with pytest.raises(UsageError, match="is a file"):
        assemble(replace(assembly, output=files / "letter", force=True))
    with pytest.raises(UsageError, match="would replace"):
        assemble(replace(assembly, output=parts / "llama", force=True))


def test_an_output_that_cannot_be_written_is_an_error_of_its_own(
    assembly: Assembly, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(VideoLLMMoD, "save_pretrained", full)
    with pytest.raises(LongreelError, match=r"cannot write .*No space left") as refused:
        assemble(assembly)
    assert not isinstance(refused.value, UsageError)
    assert list(assembly.output.parent.iterdir()) == []


def test_the_command_prints_what_it_made_and_exits_2_on_wrong_use(
    assembly: Assembly,
    parts: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = ["--vision", parts / "siglip", "--lm", parts / "llama", "-o", assembly.output]
    command = ["longreel", "assemble", *map(str, given)]
    more = ["--lora", str(parts / "lora"), "--mod-layers", "all-deep", "--keep-ratio", "0.4"]
    made = subprocess.run(
        [sys.executable, "-m", "longreel.cli", *command[1:], *more],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    assert made.stderr == ""
    assert "4 of 10 tokens kept in layers 2, 3" in made.stdout
    assert made.stdout.splitlines()[-1] == f"wrote {assembly.output}"
    assert loaded(assembly).config.mod_layers == [2, 3]

    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as exited:
        main()
    assert exited.value.code == 2
    printed = capsys.readouterr()
    assert len(printed.err.strip().splitlines()) == 1
    assert printed.out == ""
