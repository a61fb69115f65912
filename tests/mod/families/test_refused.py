"""Open models that cannot be served are refused in one line that names the thing, before work.

Each would otherwise end in a traceback, in minutes of loading, or in a process that is killed.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from infra.openmodels import reference
from longreel.errors import UsageError
from mod import loading
from mod.checkpoint import OPEN, find_checkpoint, weight_bytes
from mod.loading import load_any


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


def test_a_shard_that_is_cut_off(folder: Path) -> None:
    shard = folder / "model.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1000])
    assert "model.safetensors is cut off" in refused(folder)


def test_a_shard_that_is_no_safetensors(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"<html>not found</html>" * 10)
    assert "model.safetensors is no safetensors file" in refused(folder)


def test_no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    refused(folder)


def test_no_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"):
        (folder / name).unlink(missing_ok=True)
    refused(folder)


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
    assert "processor" in refused(folder)


def test_more_than_memory_holds(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_available_bytes", lambda: 100_000)
    message = refused(folder)
    assert "GiB of memory are free" in message


def test_weights_are_counted_from_headers(good: Path) -> None:
    from safetensors.torch import load_file

    tensors = load_file(good / "model.safetensors")
    assert weight_bytes(good) == sum(t.nbytes for t in tensors.values())
    assert weight_bytes(good, 2) == sum(2 * t.numel() for t in tensors.values())


def test_a_hub_name_without_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    message = refused("nobody/no-such-model")
    assert "cannot be had from the hub" in message


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
