"""ARank finds the layers whose vision tokens all look at the same.

Guards against layers that are proposed for routing although their tokens look at different things.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from infra.openmodels import reference
from mod import arank
from mod.arank import effective_rank, layer_ranks, proposed
from mod.batches import collate, scaled
from mod.checkpoint import OPEN, find_checkpoint
from mod.decoder import frames_before
from mod.dialogue import Dialogue
from mod.loading import load_any
from mod.objective import stream_of
from mod.world.dialogues import watch
from tests.mod.engine.models import talking_model
from tests.mod.small import small_layout, small_model


def test_effective_rank_counts_directions() -> None:
    alike = torch.full((3, 5), 0.2)
    assert float(effective_rank(alike)) == pytest.approx(1.0, abs=1e-3)
    assert float(effective_rank(torch.eye(4))) == pytest.approx(4.0)


def _small(seed: int, n_frames: int = 4) -> Dialogue:
    shown = watch(seed, n_frames)
    return replace(shown, frames=scaled(shown.frames, 48))


@pytest.mark.parametrize("dull", [0, 2])
def test_a_layer_that_looks_at_everything_alike_is_proposed_first(dull: int) -> None:
    model = small_model("llama", router="none")
    for layer in model.language_model.model.layers:
        torch.nn.init.normal_(layer.self_attn.q_proj.weight, std=1.0)
        torch.nn.init.normal_(layer.self_attn.k_proj.weight, std=1.0)
    torch.nn.init.zeros_(model.language_model.model.layers[dull].self_attn.q_proj.weight)
    seen = [_small(seed) for seed in (1, 2)]
    ranks = layer_ranks(model, small_layout(model.config), seen)
    assert ranks[dull] == pytest.approx(1.0, abs=1e-3)
    assert min(rank for layer, rank in enumerate(ranks) if layer != dull) > 1.5
    assert proposed(ranks, 0.25) == [dull]
    assert dull in proposed(ranks, 0.5)


@torch.no_grad()
def test_looking_changes_nothing() -> None:
    """Guards ranks of a model that computes something else while it is watched."""
    model, layout = talking_model(router="none")
    batch = collate([_small(3, 5)], layout, model.config)
    tokens = model.encode_frames(batch.frames, frames_before(batch.frames, None))
    stream = stream_of(model, batch, tokens)
    ranks = arank._Ranks(4, batch.frame_starts, model.config.tokens_per_frame)
    assert torch.allclose(model(stream), model(replace(stream, frames=[5], paged=ranks)), atol=1e-5)
    assert [len(each) for each in ranks.found] == [4] * 4


def test_a_routed_model_is_refused() -> None:
    model, layout = talking_model()
    with pytest.raises(ValueError, match="dense model, not with 'bounded'"):
        layer_ranks(model, layout, [])


@pytest.mark.parametrize("family", OPEN)
@torch.no_grad()
def test_layers_of_open_models_are_ranked(family: str, tmp_path: Path) -> None:
    """Guards against layers of a model that reads its frames at other places than it does in use.

    Without queries a layer looks at everything alike, wherever it lies.
    """
    reference.make(family, tmp_path)
    model, layout = load_any(find_checkpoint(str(tmp_path)), router="none")
    attention = model.decoder.layers[1].self_attn
    for name, weight in attention.named_parameters():
        if name.startswith(("q_proj", "q_norm")):
            weight.zero_()
    shown = watch(1, 6)
    pictures = scaled(shown.frames, model.config.image_size)
    ranks = layer_ranks(model, layout, [replace(shown, frames=pictures, labels=None)])
    assert ranks[1] == pytest.approx(1.0, abs=1e-3)
    assert all(rank > 1.2 for layer, rank in enumerate(ranks) if layer != 1)
    assert proposed(ranks, 0.3) == [1]


@pytest.mark.slow
def test_the_command_takes_open_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against layers proposed for our own models alone, which have a router already."""
    reference.make("qwen3_vl", tmp_path)
    arank.main([str(tmp_path), "--streams", "1", "--frames", "4", "--json"])
    assert len(json.loads(capsys.readouterr().out)["ranks"]) == 4
    with pytest.raises(SystemExit):
        arank.main([str(tmp_path), "--streams", "1", "--frames", "3"])
    assert "sees 2 frames as one: --frames must be 4 or more" in capsys.readouterr().err


def test_the_command_proposes_layers(capsys: pytest.CaptureFixture[str]) -> None:
    arank.main(["longreel-tiny", "--streams", "1", "--frames", "3", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert len(found["ranks"]) == 6
    assert all(1.0 <= rank <= 10.0 for rank in found["ranks"])
    assert found["mod_layers"] == proposed(found["ranks"], 0.5)
    arank.main(["longreel-tiny", "--streams", "1", "--frames", "3", "--share", "0.1"])
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"--router redundancy:{proposed(found['ranks'], 0.1)[0]}"
    with pytest.raises(SystemExit) as refused:
        arank.main(["nowhere"])
    assert refused.value.code == 2
    assert "no model at 'nowhere'" in capsys.readouterr().err
