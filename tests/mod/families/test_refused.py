"""Open models that cannot be served are refused in one line that names the thing, before work.

Guards against what each of them would otherwise end in: a traceback, minutes of loading, or a
process that is killed.
"""

from __future__ import annotations

import json
import re
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from infra.openmodels import reference
from longreel.errors import UsageError
from mod import checkpoint as checkpoints
from mod import loading
from mod.checkpoint import OPEN, find_checkpoint
from mod.choice import choose_router
from mod.loading import load_any
from mod.weights import refuse_larger_than, weight_bytes


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    reference.make("llava_onevision", folder)
    return folder


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    shutil.copytree(good, tmp_path / "model")
    return tmp_path / "model"


def refused(model: Path | str) -> str:
    with pytest.raises(UsageError) as caught:
        load_any(find_checkpoint(str(model)))
    message = str(caught.value)
    assert "\n" not in message
    assert str(model) in message
    return message


def looked_at(model: Path | str) -> str:
    """What is said of it before anything is loaded."""
    with pytest.raises(UsageError) as caught:
        find_checkpoint(str(model))
    assert str(caught.value) == refused(model)
    return str(caught.value)


def test_an_unknown_architecture(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "video_llama_9"}))
    message = refused(folder)
    assert "'video_llama_9'" in message
    assert all(kind in message for kind in ("videollm_mod", *OPEN))


def test_a_folder_that_holds_no_model(tmp_path: Path) -> None:
    assert "config.json" in refused(tmp_path)


def test_a_config_that_is_no_json(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    assert "config.json" in refused(folder)


def test_a_config_whose_fields_cannot_work(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["patch_size"] = 0
    (folder / "config.json").write_text(json.dumps(config))
    refused(folder)


def test_rope_that_changes_with_length(folder: Path) -> None:
    """Guards open models as well against streams whose numbers depend on their neighbours."""
    config = json.loads((folder / "config.json").read_text())
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    config["text_config"]["rope_parameters"] = rope
    (folder / "config.json").write_text(json.dumps(config))
    assert "text_config.rope_parameters.rope_type must not be 'dynamic'" in refused(folder)


def test_a_shard_that_is_cut_off(folder: Path) -> None:
    shard = folder / "model.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1000])
    assert "model.safetensors is cut off" in refused(folder)


def test_a_shard_that_is_no_safetensors(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"<html>not found</html>" * 10)
    assert "model.safetensors is no safetensors file" in refused(folder)


def test_no_weights(folder: Path) -> None:
    """Guards against weights in another format, too: neither their size nor revision is known."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    assert "has no weights: neither model.safetensors nor" in looked_at(folder)


@pytest.fixture
def shards(folder: Path) -> list[Path]:
    """Of the checkpoint in ``folder``."""
    model = AutoModelForImageTextToText.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="300KB")
    found = sorted(folder.glob("model-*.safetensors"))
    assert len(found) > 2
    return found


def test_a_shard_that_is_not_there(folder: Path, shards: list[Path]) -> None:
    shards[1].unlink()
    assert f"{shards[1].name} is missing, which model.safetensors.index.json" in looked_at(folder)


def test_one_of_many_shards_that_is_cut_off(folder: Path, shards: list[Path]) -> None:
    shards[1].write_bytes(shards[1].read_bytes()[:-500])
    assert f"{shards[1].name} is cut off" in looked_at(folder)


def test_an_index_of_shards_that_cannot_be_read(folder: Path, shards: list[Path]) -> None:
    (folder / "model.safetensors.index.json").write_text("{}")
    assert "model.safetensors.index.json is no index of shards" in looked_at(folder)


def test_shards_are_counted_once(good: Path, folder: Path, shards: list[Path]) -> None:
    """Guards against weights that lie there a second time, in another layout."""
    shutil.copyfile(good / "model.safetensors", folder / "consolidated.safetensors")
    assert weight_bytes(folder) == weight_bytes(good)


def test_weights_that_the_config_does_not_fit(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("q_proj.weight"))
    weights[name] = weights[name][:32].contiguous()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert re.search(r"q_proj\.weight' has the shape \(32, 64\)", refused(folder))


def test_weights_that_need_a_library_which_is_not_there(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (folder / "config.json").write_text(json.dumps(config))
    assert "gptq" in refused(folder)


@pytest.mark.parametrize("family", OPEN)
def test_no_tokenizer(family: str, tmp_path: Path) -> None:
    """Guards against the empty tokenizer that transformers makes of nothing for some families."""
    reference.make(family, tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"):
        (tmp_path / name).unlink(missing_ok=True)
    assert "brings no tokenizer" in looked_at(tmp_path)


def test_a_tokenizer_that_is_a_placeholder(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1")
    assert "tokenizer cannot be read" in looked_at(folder)


def test_the_tokenizer_of_another_model(folder: Path) -> None:
    written = json.loads((folder / "tokenizer.json").read_text())
    written["added_tokens"] = []
    (folder / "tokenizer.json").write_text(json.dumps(written))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    kept = {name: settings[name] for name in ("tokenizer_class", "processor_class")}
    (folder / "tokenizer_config.json").write_text(json.dumps(kept))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 151645}))
    assert "not 151645, with which answers end" in looked_at(folder)


def test_no_chat_template(folder: Path) -> None:
    for name in ("chat_template.jinja", "chat_template.json"):
        (folder / name).unlink(missing_ok=True)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    assert "chat template" in refused(folder)


def test_a_chat_template_that_cannot_be_rendered(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{% for message in %}")
    assert "chat template" in refused(folder)


def test_no_processor(folder: Path) -> None:
    for name in (
        "processor_config.json",
        "preprocessor_config.json",
        "video_preprocessor_config.json",
    ):
        (folder / name).unlink(missing_ok=True)
    assert "brings no processor" in looked_at(folder)


def test_a_processor_that_cannot_be_read(folder: Path) -> None:
    (folder / "processor_config.json").write_text("{")
    assert "processor_config.json is no JSON" in looked_at(folder)


def test_more_than_memory_holds(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "available_bytes", lambda: 100_000)
    message = refused(folder)
    assert "GiB of memory are free" in message


def test_what_is_too_large_is_refused_before_it_is_read(folder: Path) -> None:
    """Guards against minutes of hashing before anybody says that it does not fit."""
    read = checkpoints._revision.cache_info().misses
    with pytest.raises(UsageError, match=r"GiB; 0\.0 GiB of memory are free"):
        find_checkpoint(str(folder), check=partial(refuse_larger_than, 100_000))
    assert checkpoints._revision.cache_info().misses == read


def test_weights_are_counted_from_headers(good: Path) -> None:
    tensors = load_file(good / "model.safetensors")
    assert weight_bytes(good) == sum(t.nbytes for t in tensors.values())
    assert weight_bytes(good, 2) == sum(2 * t.numel() for t in tensors.values())


def test_a_hub_name_without_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    message = refused("nobody/no-such-model")
    assert "cannot be had from the hub" in message


def test_a_hub_repository_that_is_no_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(tmp_path))
    assert "on the hub has no config.json" in refused("somebody/some-data")


def test_a_lora_alone(tmp_path: Path) -> None:
    """Guards the first thing that who has VideoLLM-online's checkpoint may try."""
    (tmp_path / "adapter_config.json").write_text("{}")
    assert "longreel assemble --lora" in looked_at(tmp_path)


def test_layers_that_it_does_not_have(good: Path) -> None:
    """Guards against a service that starts for minutes before it says so."""
    checkpoint = find_checkpoint(str(good))
    with pytest.raises(UsageError, match="names layer 99; the model has 3"):
        choose_router("redundancy:1,99", checkpoint)
    with pytest.raises(UsageError, match="'after-3' leaves none of 3 layers"):
        choose_router("redundancy:after-3", checkpoint)


def test_a_keep_ratio_without_a_router(good: Path) -> None:
    with pytest.raises(UsageError, match="needs a router"):
        load_any(find_checkpoint(str(good)), keep_ratio=0.5)
    model, _ = load_any(find_checkpoint(str(good)), keep_ratio=0.5, router="redundancy:after-1")
    assert model.config.tokens_in_layer(1) < model.config.tokens_per_frame


def test_a_trained_router_is_not_there(good: Path) -> None:
    with pytest.raises(UsageError, match="no weights of a router"):
        load_any(find_checkpoint(str(good)), router="learned")


def test_a_config_says_how_it_is_used(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    chosen = {"ask": "What is new?", "ask_every_s": 2, "fps": 2.0}
    (folder / "config.json").write_text(json.dumps({**config, "longreel": chosen}))
    checkpoint = find_checkpoint(str(folder))
    assert checkpoint.fps == 2.0
    asking = load_any(checkpoint)[1].asking
    assert asking is not None
    assert (asking.question, asking.every_s) == ("What is new?", 2)
    (folder / "config.json").write_text(json.dumps({**config, "longreel": {"ask_evry_s": 2}}))
    assert "longreel.ask_evry_s" in refused(folder)


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ([1], r"longreel in its config must be an object, not \[1\]"),
        ({"picture_size": 100}, "picture_size must be a multiple of 28 pixels, not 100"),
        ({"picture_size": "big"}, "picture_size must be a multiple of 28 pixels, not 'big'"),
        ({"ask_every_s": 0}, "ask_every_s must be above 0, not 0"),
    ],
)
def test_a_config_that_says_what_cannot_be(tmp_path: Path, chosen: object, said: str) -> None:
    reference.make("qwen2_5_vl", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "longreel": chosen}))
    assert re.search(said, looked_at(tmp_path))
