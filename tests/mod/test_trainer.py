"""Training can be stopped and taken up again at any step, and LoRA trains what it says."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from mod.batches import IGNORE, Batch
from mod.modeling import VideoLLMMoD
from mod.objective import Objective
from mod.recipe import DataPart, ModelPart, TrainingPart, TrainRecipe
from mod.sequences import Batches, GeneratedWorld
from mod.start import start
from mod.trainer import Trainer

DATA = DataPart(batch_frames=12, frames=[6], long_frames=6, augment=0.5)


def _recipe(**training: Any) -> TrainRecipe:
    fields = {"steps": 6, "see_steps": 2, "see_frames": 3, "warmup": 2} | training
    return TrainRecipe(data=DATA, training=TrainingPart(**fields))


def _batches(recipe: TrainRecipe) -> tuple[VideoLLMMoD, int, Batches]:
    model, layout = start(recipe)
    assert isinstance(model, VideoLLMMoD)
    assert layout.silence is not None
    return model, layout.silence, Batches(recipe, GeneratedWorld(recipe), layout, model.config)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [1, 2, 4])
def test_a_run_that_was_cut_goes_on_as_if_it_had_not_been(stop: int) -> None:
    """Guards resume: before, at and after the border of the two stages."""
    recipe = _recipe()
    model, silence, batches = _batches(recipe)
    whole = Trainer(recipe, model, silence)
    state = None
    for step in range(6):
        whole.step(batches.batch(step))
        if step + 1 == stop:
            state = torch.utils._pytree.tree_map(
                lambda x: x.clone() if isinstance(x, Tensor) else x, whole.state()
            )
    assert state is not None
    other_model, _, _ = _batches(recipe)
    other = Trainer(recipe, other_model, silence)
    other.restore(state)
    assert other.step_number == stop
    for step in range(stop, 6):
        other.step(batches.batch(step))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other_model.state_dict()[name]), name


def test_batches_are_the_same_whoever_renders_them_and_differ_between_workers() -> None:
    """Guards against workers that learn the same batch, and a resumed run that learns others."""
    recipe = _recipe()
    model, layout = start(recipe)

    def batch(rank: int) -> Batch:
        source = GeneratedWorld(recipe)
        return Batches(recipe, source, layout, model.config, rank=rank).batch(3)

    a, b, c = batch(0), batch(0), batch(1)
    assert torch.equal(a.frames, b.frames)
    assert torch.equal(a.labels, b.labels)
    assert not torch.equal(a.frames, c.frames)


def _loss(model: VideoLLMMoD, silence: int, batch: Batch) -> float:
    with torch.no_grad():
        return float(Objective(model, silence)(batch)["live"])


@pytest.mark.slow
def test_lora_trains_its_updates_connector_and_routers_only() -> None:
    """Guards against weights that drift, or updates that the saved model lacks."""
    recipe = TrainRecipe(
        model=ModelPart(train="lora", lora_rank=4, lora_alpha=8),
        data=DATA,
        training=TrainingPart(steps=4, see_steps=0, warmup=1, learning_rate=1e-2),
    )
    model, silence, batches = _batches(recipe)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trainer = Trainer(recipe, model, silence)
    for step in range(4):
        trainer.step(batches.batch(step))
    after = trainer.plain_weights()
    assert set(after) == set(before)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name for name in changed if "vision_tower" in name} == set()
    for part in ("q_proj", "down_proj", "connector.up", "routers.1"):
        assert any(part in name for name in changed), part
    assert not any("norm" in name or "embed" in name for name in changed)
    plain, _, _ = _batches(recipe)
    plain.load_state_dict(after)
    batch = batches.batch(9)
    assert _loss(plain, silence, batch) == pytest.approx(_loss(model, silence, batch), abs=1e-4)


@pytest.mark.slow
def test_gradient_checkpointing_changes_memory_and_not_gradients() -> None:
    """Guards against a routing that is drawn anew in the second forward."""
    gradients = []
    for checkpointing in (False, True):
        recipe = _recipe(see_steps=0, gradient_checkpointing=checkpointing)
        model, silence, batches = _batches(recipe)
        trainer = Trainer(recipe, model, silence)
        gradients.append([trainer.step(batches.batch(step))["norm"] for step in range(3)])
    assert gradients[0] == pytest.approx(gradients[1], rel=1e-4)


def _printed(script: str) -> list[str]:
    """What a process of its own prints: some virtual machines promise matrix units they lack."""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode == -signal.SIGILL:
        pytest.skip("this processor promises bfloat16 instructions that it does not run")
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.slow
def test_bfloat16_autocast_learns_the_same_within_rounding() -> None:
    """Guards mixed precision, in which a loss may be lost to rounding."""
    script = """
import torch
from tests.mod.test_trainer import _batches, _recipe
from mod.trainer import Trainer
torch.set_num_threads(1)
for precision in ("float32", "bfloat16"):
    recipe = _recipe(see_steps=0, precision=precision)
    model, silence, batches = _batches(recipe)
    print(Trainer(recipe, model, silence).step(batches.batch(0))["live"])
"""
    plain, half = map(float, _printed(script))
    assert half == pytest.approx(plain, rel=0.02)
    assert half != plain


@pytest.mark.long
def test_routers_learn_under_autocast() -> None:
    """Guards against the cast that ranking makes without gradients, taken again for weighing."""
    script = """
import torch
from tests.mod.test_trainer import _batches, _recipe
from mod.objective import Objective
torch.set_num_threads(1)
model, silence, batches = _batches(_recipe(see_steps=0))
with torch.autocast("cpu", torch.bfloat16):
    loss = Objective(model.train(), silence)(batches.batch(0))["loss"]
loss.backward()
for weight in model.routers.parameters():
    print(weight.grad is not None and bool(weight.grad.any()))
"""
    assert _printed(script) == ["True"] * 3


@pytest.mark.slow
@pytest.mark.parametrize("train", ["lora", "all"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_weights_that_learn_are_exact_whatever_their_checkpoint(train: str, precision: str) -> None:
    """Guards against steps that are lost in rounding: bfloat16 tells 1 from 1.008 at best."""
    recipe = TrainRecipe(
        model=ModelPart(train=train, lora_rank=4, lora_alpha=8),  # type: ignore[arg-type]
        data=DATA,
        training=TrainingPart(steps=4, see_steps=0, precision=precision),  # type: ignore[arg-type]
    )
    model, silence, _ = _batches(recipe)
    Trainer(recipe, model.to(torch.bfloat16), silence)
    learns = {p.dtype for p in model.parameters() if p.requires_grad}
    still = {p.dtype for p in model.parameters() if not p.requires_grad}
    assert learns == {torch.float32}
    asis = torch.bfloat16 if precision == "bfloat16" else torch.float32
    assert still == ({asis} if train == "lora" else set())


@pytest.mark.slow
def test_doubtful_frames_teach_nothing() -> None:
    """Guards augmentation: no loss on a spoiled narration nor on the frames next to it."""
    recipe = _recipe(see_steps=0)
    plain = TrainRecipe(
        data=DataPart(batch_frames=12, frames=[6], long_frames=6), training=recipe.training
    )
    asked = []
    for r in (plain, recipe):
        _, _, batches = _batches(r)
        asked.append(sum(int((batches.batch(s).labels != IGNORE).sum()) for s in range(10)))
    assert 0 < asked[1] < asked[0]
