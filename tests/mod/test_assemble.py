"""An assembled checkpoint computes what its parts compute.

Guards against a checkpoint that loads and computes something else than its parts.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config, SiglipModel

from mod.assemble import Assembly, assemble
from mod.checkpoint import find_checkpoint
from mod.decoder import Stream, frames_before
from mod.engine.viewer import Viewer
from mod.loading import load
from mod.modeling import Connector, VideoLLMMoD
from tests.mod.assembly import (
    LORA_MODULES,
    VOCABULARY,
    loaded,
    make_lm,
    make_lora,
    some_ids,
    text_logits,
)
from tests.mod.small import FAMILIES, TEXT, small_config, some_frames


@pytest.mark.slow
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
    vocabulary = len(AutoTokenizer.from_pretrained(made.output))
    assert got.shape[1] == vocabulary
    # VideoLLM-online's stream has no marks of its own; Qwen2's tokenizer adds one when it is read.
    assert (vocabulary == VOCABULARY) == (with_lora and family != "qwen2")
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


@torch.no_grad()
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


@pytest.mark.slow
def test_the_same_parts_give_the_same_bytes(assembly: Assembly) -> None:
    assemble(assembly)
    first = find_checkpoint(str(assembly.output)).revision
    torch.manual_seed(77)
    other = replace(assembly, output=assembly.output.with_name("other"))
    assemble(other)
    assert find_checkpoint(str(other.output)).revision == first


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
@torch.no_grad()
def test_tied_embeddings_stay_tied_unless_the_lora_changes_one_of_them(
    parts: Path, tmp_path: Path
) -> None:
    """Guards against an update of the head that also reaches the input embeddings."""
    lm = make_lm(tmp_path / "lm", Qwen2Config(**TEXT, tie_word_embeddings=True))
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


def test_a_schedule_reaches_the_checkpoint(assembly: Assembly) -> None:
    assemble(replace(assembly, mod_layers="all", keep_schedule="shifted_cosine", keep_ratio=0.4))
    config = loaded(assembly).config
    kept = [config.tokens_in_layer(layer) for layer in range(4)]
    assert kept == sorted(kept, reverse=True)
    assert kept[0] > kept[-1]
    assert sum(kept) == pytest.approx(16, abs=1)


def test_the_bounded_router_weighs_every_kept_token_by_one(assembly: Assembly) -> None:
    assemble(replace(assembly, router="bounded", mod_layers="0,3", keep_ratio=0.3, fps=1.0))
    model = loaded(assembly)
    assert model.config.mod_layers == [0, 3]
    assert [model.config.tokens_in_layer(layer) for layer in range(4)] == [3, 10, 10, 3]
    assert all(not parameter.any() for parameter in model.routers.parameters())
    outcomes = Viewer(*load(find_checkpoint(str(assembly.output))), max_new_tokens=4).watch(
        some_frames(3)
    )
    assert len(outcomes) == 3
