"""ARank finds the layers whose vision tokens all look at the same."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from mod import arank
from mod.arank import effective_rank, layer_ranks, proposed
from mod.batches import collate
from mod.decoder import frames_before
from mod.objective import stream_of
from mod.world.dialogues import watch
from tests.mod.engine.models import talking_model
from tests.mod.small import small_layout, small_model


def test_effective_rank_counts_directions() -> None:
    alike = torch.full((3, 5), 0.2)
    assert float(effective_rank(alike)) == pytest.approx(1.0, abs=1e-3)
    assert float(effective_rank(torch.eye(4))) == pytest.approx(4.0)


@pytest.mark.parametrize("dull", [0, 2])
def test_a_layer_that_looks_at_everything_alike_is_proposed_first(dull: int) -> None:
    model = small_model("llama", router="none")
    for layer in model.language_model.model.layers:
        torch.nn.init.normal_(layer.self_attn.q_proj.weight, std=1.0)
        torch.nn.init.normal_(layer.self_attn.k_proj.weight, std=1.0)
    torch.nn.init.zeros_(model.language_model.model.layers[dull].self_attn.q_proj.weight)
    seen = [arank._sized(watch(seed, 4), 48) for seed in (1, 2)]
    ranks = layer_ranks(model, small_layout(model.config), seen)
    assert ranks[dull] == pytest.approx(1.0, abs=1e-3)
    assert min(rank for layer, rank in enumerate(ranks) if layer != dull) > 1.5
    assert proposed(ranks, 0.25) == [dull]
    assert dull in proposed(ranks, 0.5)


@torch.no_grad()
def test_looking_changes_nothing() -> None:
    """Guards ranks of a model that computes something else while it is watched."""
    model, layout = talking_model(router="none")
    batch = collate([arank._sized(watch(3, 5), 48)], layout, model.config)
    tokens = model.encode_frames(batch.frames, frames_before(batch.frames, None))
    stream = stream_of(model, batch, tokens)
    ranks = arank._Ranks(4, batch.frame_starts, model.config.tokens_per_frame)
    assert torch.allclose(model(stream), model(replace(stream, frames=[5], paged=ranks)), atol=1e-5)
    assert [len(each) for each in ranks.found] == [4] * 4


def test_a_routed_model_is_refused() -> None:
    model, layout = talking_model()
    with pytest.raises(ValueError, match="dense model, not with 'bounded'"):
        layer_ranks(model, layout, [])


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
