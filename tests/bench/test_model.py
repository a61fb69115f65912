"""What the bench of training and quality makes of its measurements, and the methods it compares."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from bench import model as bench
from bench.models import LAYERS, WIDTH, wide_config
from mod.batches import collate
from mod.checkpoint import TINY, find_checkpoint
from mod.layout import StreamLayout
from mod.loading import load
from mod.metrics import TeacherForced
from mod.modeling import VideoLLMMoD
from mod.world.dialogues import watch

FULL = TeacherForced(2.0, 0.2, 0.5, 0.4, 100)


@pytest.fixture(scope="module")
def tiny() -> Iterator[tuple[VideoLLMMoD, StreamLayout]]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield load(find_checkpoint(TINY))
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("metric", "worse", "better"),
    [("lm_ppl", 2.2, 1.8), ("time_diff_s", 0.22, 0.18), ("fluency", 0.45, 0.55)],
)
def test_a_loss_is_above_0_where_the_metric_is_worse(
    metric: str, worse: float, better: float
) -> None:
    """Guards against a gain that is reported as a loss, or the other way round."""
    for value, expected in ((worse, 0.1), (better, -0.1)):
        other = replace(FULL, **{metric: value})  # type: ignore[arg-type]
        found = bench.losses(other, [FULL])
        assert found.pop(metric) == pytest.approx(expected)
        assert set(found.values()) == {0.0}


def test_losses_are_against_the_mean_of_all_seeds() -> None:
    """Guards against one lucky seed of Full that every method is held to."""
    other = replace(FULL, lm_ppl=4.0)
    assert bench.losses(FULL, [FULL, other])["lm_ppl"] == pytest.approx(-1 / 3)
    mean = bench.mean_losses([FULL, replace(FULL, lm_ppl=3.0)], [FULL])
    assert mean["lm_ppl"] == pytest.approx(0.25)


def test_methods_that_are_compared_cost_the_same(tiny: tuple[VideoLLMMoD, StreamLayout]) -> None:
    """Guards the comparison of routers: none may run more tokens than another."""
    cost = bench.costs(tiny[0])
    assert cost["full"] == 1.0
    assert cost["mod 0.2"] == cost["learned 0.2"] == cost["random 0.2"] == cost["uniform 0.2"]
    assert cost["mod all 0.2"] == cost["random all 0.2"]
    assert cost["early exit"] < cost["layer skip"] < cost["mod 0.2"] < cost["mod 0.3"] < 1.0


@pytest.mark.slow
def test_a_method_trains_its_decoder_and_router_behind_one_tower(
    tiny: tuple[VideoLLMMoD, StreamLayout],
) -> None:
    """Guards against methods that differ in more than their decoder."""
    model, layout = tiny
    world = bench.World(model, layout, [8_000_000, 8_000_001])
    weights = model.state_dict()
    trained = bench.train_method(bench.METHODS["mod 0.2"], model, weights, world, 2, seed=0)
    after = trained.state_dict()
    changed = {name for name in weights if not torch.equal(weights[name], after[name])}
    assert not any(name.startswith("vision_tower.") for name in changed)
    for part in ("q_proj", "down_proj", "connector.up", "routers.1"):
        assert any(part in name for name in changed), part


def test_both_sides_of_the_timed_step_see_the_same_stream() -> None:
    """Guards the bar's geometry: what is timed is as large as the bar asks."""
    full, mod = (wide_config(1024, router=router) for router in ("none", "bounded"))
    assert full.text_config.num_hidden_layers == LAYERS >= 8
    assert full.text_config.hidden_size == WIDTH >= 512
    assert bench.FULL.step_frames * (full.tokens_per_frame + 1) >= 6000
    assert full.text_config.to_dict() == mod.text_config.to_dict()
    share = mod.tokens_in_layer(1) / mod.tokens_per_frame
    assert (share, mod.mod_layers) == (0.2, [1, 3, 5, 7])


def test_held_out_streams_are_of_other_seeds(tiny: tuple[VideoLLMMoD, StreamLayout]) -> None:
    """Guards against quality measured on streams that a method was trained on."""
    effort = bench.FULL
    trained = range(bench.TRAINED, bench.TRAINED + effort.streams)
    held = range(bench.HELD_OUT, bench.HELD_OUT + effort.held_out)
    assert not set(trained) & set(held)
    a, b = (watch(seed, 4) for seed in (trained[0], held[0]))
    assert not np.array_equal(a.frames, b.frames)
    batch = collate([a], tiny[1], bench.method_config({}, tiny[0]))
    assert len(batch.frames) == 4
