"""The LIVE loss equals the formula, and one step of training teaches every part."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from longreel.errors import UsageError
from mod.batches import IGNORE, collate
from mod.checkpoint import find_checkpoint
from mod.dialogue import Dialogue, Labels, Turn
from mod.engine.viewer import Viewer
from mod.loading import load
from mod.objective import Objective, live_loss, stream_of
from mod.recipe import DataPart, TrainingPart, TrainRecipe
from mod.train import train
from mod.world.dialogues import watch
from mod.world.things import UNKNOWN
from tests.mod import online
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


def test_the_loss_of_a_stream_is_the_formula_over_its_tokens() -> None:
    """Guards against a term too many or too few: the sum is written out here, position by position,
    on what transformers' own model says of the whole stream.
    """
    model = small_model(router="none")
    layout, sigma = small_layout(model.config), 0.3
    pictures, text, answer = some_frames(3), "Cut to a red scene.", "A red scene."
    question = "How does it look now?"
    dialogue = Dialogue(pictures.numpy(), [None, text, None], (Turn(3, question, answer),))
    batch = collate([dialogue], layout, model.config)
    found = Objective(model, layout.silence, sigma=sigma)(batch)["live"].item()

    seen = model.encode_frames(pictures, pictures)
    instruction = layout.encode(model.config.instruction)
    said, told = ([*layout.encode(t), layout.end] for t in (text, answer))
    asked = [layout.user, *layout.encode(question), layout.assistant]
    stream: list[Any] = [
        layout.begin,
        *instruction,
        seen[0],
        layout.silence,
        seen[1],
        *said,
        seen[2],
    ]
    stream += [layout.silence, *asked, *told]
    parts: list[Tensor] = []
    terms: list[int] = []
    at = 0
    for part in stream:
        ids = None if isinstance(part, Tensor) else torch.tensor([part])
        parts.append(part if ids is None else model.embed_text(ids))
        at += len(parts[-1])
        terms.append(at - 1)
    model.language_model.set_attn_implementation("eager")
    logits = model.language_model(inputs_embeds=torch.cat(parts)[None]).logits[0]
    total, count = 0.0, 0
    first = 1 + len(instruction)
    spoken = range(first + 2, first + 2 + len(said))
    answered = range(len(stream) - 1 - len(told), len(stream) - 1)
    for number in range(len(stream) - 1):
        after = stream[number + 1]
        log_p = logits[terms[number]].log_softmax(-1).tolist()
        if number in spoken or number in answered:
            total, count = total - log_p[after], count + 1  # l: the assistant's words
        elif number in (first, first + 3 + len(said)):
            total, count = total - sigma * log_p[layout.silence], count + 1  # s: silence
    assert count == len(said) + len(told) + 2
    assert found == pytest.approx(total / count, rel=1e-5)


@torch.no_grad()
def test_a_comma_within_a_narration_weighs_as_a_word() -> None:
    """Guards VideoLLM-online's layout, whose silence is a comma: where it is said it is none."""
    model, layout = online.published()
    text, answer, sigma = "A cut, then, a pan.", "Red, blue.", 0.3
    dialogues = [
        Dialogue(some_frames(4).numpy(), [None, text, None, None], (Turn(4, "What?", answer),)),
        Dialogue(some_frames(3).numpy(), [None, text, None], doubtful=frozenset({2})),
    ]
    comma = layout.silence
    batch = collate(dialogues, layout, model.config)
    found = Objective(model, comma, sigma=sigma)(batch)["live"].item()

    asked = (batch.labels != IGNORE).nonzero()[:, 0]
    tokens = model.encode_frames(batch.frames, batch.before)
    log_p = model.logits(model(stream_of(model, batch, tokens))[asked]).log_softmax(-1)
    ends = (batch.frame_starts + model.config.tokens_per_frame - 1).tolist()
    total, commas = 0.0, 0
    for place, row, label in zip(asked.tolist(), log_p, batch.labels[asked].tolist(), strict=True):
        silent = label == comma and place in ends
        commas += label == comma and not silent
        total -= (sigma if silent else 1.0) * float(row[label])
    assert commas == 5
    assert found == pytest.approx(total / len(asked), rel=1e-5)


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


def test_what_nobody_knows_teaches_nothing() -> None:
    """Guards a whole run from one batch: torch's mean of nothing is no number."""
    model = small_model().train()
    layout = small_layout(model.config)
    labels = Labels(
        np.zeros(2, np.bool_), np.full(2, -1, np.int64), np.full((2, 3, 3), UNKNOWN, np.int64)
    )
    silent = Dialogue(
        some_frames(2).numpy(), [None] * 2, labels=labels, doubtful=frozenset(range(2))
    )
    results = Objective(model, layout.silence, perception_weight=1.0)(
        collate([silent], layout, model.config)
    )
    assert set(results) == {"loss", "perception"}
    torch.autograd.backward(results["loss"])
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.slow
def test_the_documented_command_trains_a_checkpoint_that_loads(tmp_path: Path) -> None:
    """Guards against a training that runs to its end and leaves what nobody can load."""
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
