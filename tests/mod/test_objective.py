"""The LIVE loss equals the formula, and one step of training teaches every part."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from longreel.errors import UsageError
from mod.batches import collate
from mod.checkpoint import find_checkpoint
from mod.engine.viewer import Viewer
from mod.loading import load
from mod.objective import Objective, live_loss
from mod.recipe import DataPart, TrainingPart, TrainRecipe
from mod.train import train
from mod.world.dialogues import watch
from tests.mod.small import small_layout, small_model, some_frames


def test_the_loss_is_the_papers_sum() -> None:
    """Text terms weigh 1, silence terms sigma, divided by the supervised positions."""
    logits = torch.randn(5, 7)
    labels = torch.tensor([2, 6, 6, 0, 3])
    silence, sigma = 6, 0.4
    total = 0.0
    for row, label in zip(logits, labels.tolist(), strict=True):
        probability = float(row.exp()[label] / row.exp().sum())
        total -= (sigma if label == silence else 1.0) * float(torch.tensor(probability).log())
    assert live_loss(logits, labels, silence, sigma).item() == pytest.approx(total / 5, abs=1e-5)


def test_gradients_reach_tower_connector_routers_and_every_layer() -> None:
    """Guards against a part that the training leaves as it was born."""
    model = small_model(router="bounded").train()
    layout = small_layout(model.config)
    dialogue = watch(3, 6)
    small = torch.nn.functional.interpolate(
        torch.from_numpy(dialogue.frames).permute(0, 3, 1, 2).float(), size=48
    )
    frames = small.permute(0, 2, 3, 1).to(torch.uint8).numpy()
    batch = collate([replace(dialogue, frames=frames)], layout, model.config)
    results = Objective(model, layout.silence, perception_weight=1.0)(batch)
    torch.autograd.backward(results["loss"])
    assert 0.0 <= results["right"].item() <= 1.0
    assert results["loss"].item() == pytest.approx((results["live"] + results["perception"]).item())
    without = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().sum() > 0
    ]
    assert without == []


@pytest.mark.slow
def test_the_documented_command_trains_a_checkpoint_that_loads(tmp_path: Path) -> None:
    recipe = TrainRecipe(
        data=DataPart(batch_frames=16, frames=[8], long_frames=8),
        training=TrainingPart(steps=8, see_steps=1, warmup=2),
    )
    train(recipe, tmp_path, workers=0)
    first = json.loads((tmp_path / "training.jsonl").read_text().splitlines()[0])
    assert first == recipe.as_dict()
    model, layout = load(find_checkpoint(str(tmp_path)))
    assert len(Viewer(model, layout, max_new_tokens=2).watch(some_frames(3, size=96))) == 3


def test_own_footage_is_not_passed_over(tmp_path: Path) -> None:
    """Guards against a model that learned from another world than its recipe says."""
    recipe = TrainRecipe(
        data=DataPart(narrations=["rows.jsonl"]), training=TrainingPart(see_steps=0)
    )
    with pytest.raises(UsageError, match="longreel train"):
        train(recipe, tmp_path / "out", workers=0)
    assert not (tmp_path / "out").exists()
