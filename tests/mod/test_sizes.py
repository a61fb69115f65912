"""The generated world teaches, and measures, models of any picture size.

Guards against a checkpoint from `longreel assemble`, whose tower takes 384 pixels, that cannot be
trained without footage of one's own.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mod.batches import scaled
from mod.checkpoint import find_checkpoint
from mod.engine.viewer import Viewer
from mod.evaluate import evaluate
from mod.loading import load
from mod.recipe import DataPart, ModelPart, TrainingPart, TrainRecipe
from mod.train import train
from mod.world.dialogues import watch
from tests.mod.small import small_layout, small_model

#: Of the small models' pictures; the world's own are of 96 pixels.
SIDE = 48


def test_pictures_keep_what_they_show() -> None:
    frames = watch(3, 4).frames
    small = scaled(frames, SIDE)
    assert small.shape == (4, SIDE, SIDE, 3)
    assert small.mean((1, 2)) == pytest.approx(frames.mean((1, 2)), abs=1.0)
    assert scaled(frames, frames.shape[1]) is frames
    nothing = np.zeros((0, 1, 1, 3), np.uint8)
    assert scaled(nothing, SIDE) is nothing


@pytest.mark.slow
def test_a_checkpoint_of_another_picture_size_learns_and_is_measured(tmp_path: Path) -> None:
    model = small_model(router="bounded")
    model.save_pretrained(tmp_path / "before")
    small_layout(model.config).tokenizer.save_pretrained(tmp_path / "before")
    recipe = TrainRecipe(
        model=ModelPart(start=str(tmp_path / "before")),
        data=DataPart(batch_frames=8, frames=[4], long_frames=4),
        training=TrainingPart(steps=2, see_steps=1, see_frames=4, warmup=1),
    )
    train(recipe, tmp_path / "after", workers=0)
    trained, layout = load(find_checkpoint(str(tmp_path / "after")))
    assert not torch.equal(trained.connector.up.weight, model.connector.up.weight)
    scores = evaluate(trained, layout, n_streams=1, n_frames=4, first_seed=11)
    seen = torch.from_numpy(scaled(watch(11, 4).frames, SIDE))
    said = [outcome.text for outcome in Viewer(trained, layout).watch(seen)]
    assert scores.narrated == sum(text is not None for text in said) / 4
