"""Routers and low-rank updates for open models, learned from timestamped narrations.

Guards against a training that reads frames, text or positions otherwise than the model is served
with, that does not begin as the model was published, or whose result cannot be loaded again.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from infra.openmodels import reference
from longreel.errors import UsageError
from mod.batches import Batch, collate
from mod.checkpoint import OPEN, find_checkpoint
from mod.dialogue import Dialogue, Turn, asked
from mod.loading import load_any
from mod.metrics import teacher_forced
from mod.objective import Objective
from mod.recipe import DataPart, ModelPart, TrainingPart, TrainRecipe
from mod.sequences import Batches
from mod.start import check_start, start
from mod.train import save
from mod.trainer import Trainer

N = 5
TEXT = "A red car stops at the lights."


@pytest.fixture(scope="module", params=OPEN)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp(request.param)
    reference.make(request.param, made)
    return made


def _recipe(folder: Path, **model: Any) -> TrainRecipe:
    part = {"train": "lora", "lora_rank": 4, "lora_alpha": 8, **model}
    return TrainRecipe(
        model=ModelPart(start=str(folder), **part),
        data=DataPart(narrations=["rows.jsonl"]),
        training=TrainingPart(steps=30, see_steps=0, warmup=2, learning_rate=1e-2),
    )


def _dialogue(folder: Path, n: int = N) -> Dialogue:
    frames = reference.frames_of(n, find_checkpoint(str(folder)).image_size, 3)
    return Dialogue(frames, [*[None] * (n - 1), TEXT])


class _Once:
    """The same dialogue again and again."""

    def __init__(self, dialogue: Dialogue) -> None:
        self._dialogue = dialogue

    def dialogues(self, step: int, rng: np.random.Generator) -> list[Dialogue]:
        return [self._dialogue]


def _batch(folder: Path, recipe: TrainRecipe, dialogue: Dialogue) -> tuple[Any, Any, Batch]:
    model, layout = start(recipe)
    places = model.places(float(model.config.fps))
    batches = Batches(recipe, _Once(dialogue), layout, model.config, places)
    return model, layout, batches.batch(0)


@pytest.mark.slow
def test_a_run_begins_at_the_loss_of_the_published_model(folder: Path) -> None:
    """With everything kept, new routers and updates change nothing, and the batch is its prompt."""
    if find_checkpoint(str(folder)).kind == "smolvlm":
        pytest.skip("it is told how many frames there are, which training does not know")
    model, layout, batch = _batch(folder, _recipe(folder, keep_ratio=1.0), _dialogue(folder))
    trainer = Trainer(_recipe(folder, keep_ratio=1.0), model, layout.silence)
    told = trainer.step(batch)
    assert layout.asking is not None
    frames = reference.frames_of(N, model.config.image_size, 3)
    wanted = reference.loss(
        folder, frames, layout.asking.question, layout.words(TEXT), model.config.fps
    )
    assert told["live"] == pytest.approx(wanted, abs=1e-3)


@pytest.mark.slow
def test_questions_of_users_stay_in_the_stream_and_narrations_do_not(folder: Path) -> None:
    model, layout = start(_recipe(folder))
    dialogue = _dialogue(folder)
    earlier = replace(
        dialogue, texts=["Nothing.", *dialogue.texts[1:]], turns=(Turn(3, "How many?", "Two."),)
    )
    batch = collate(
        [asked(earlier, N - 1, "What now?")],
        layout,
        model.config,
        model.places(float(model.config.fps)),
    )
    read = layout.tokenizer.decode(batch.token_ids)
    assert read.index("How many?") < read.index("Two.") < read.index("What now?")
    assert read.index("What now?") < read.index(TEXT)
    assert "Nothing." not in read
    learned = layout.decode(batch.labels[batch.labels >= 0])
    assert "Two." in learned
    assert TEXT in learned
    assert "How many?" not in learned
    # The frame before the question waits for none: it is a step of its own.
    per_step = model.config.frames_per_step
    steps = -(-3 // per_step) + -(-(N - 3) // per_step)
    assert len(batch.frame_starts) == steps
    assert len(batch.frames) == steps * per_step


@pytest.mark.slow
@pytest.mark.parametrize("train", [pytest.param("lora", marks=pytest.mark.long), "all"])
def test_what_was_learned_is_served(folder: Path, tmp_path: Path, train: str) -> None:
    recipe = _recipe(folder, train=train, keep_ratio=0.5, router="bounded:after-1")
    if train == "all":
        recipe = replace(recipe, training=replace(recipe.training, learning_rate=1e-3))
    model, layout, batch = _batch(folder, recipe, _dialogue(folder))
    assert model.config.mod_layers[0] == 1
    trainer = Trainer(recipe, model, layout.silence)
    first = trainer.step(batch)["live"]
    for _ in range(28):
        last = trainer.step(batch)["live"]
    assert last < 0.5 * first
    save(model, trainer.plain_weights(), layout.tokenizer, tmp_path)
    checkpoint = find_checkpoint(str(tmp_path))
    assert (checkpoint.router, checkpoint.keep_ratio) == ("bounded", 0.5)
    assert checkpoint.revision != find_checkpoint(str(folder)).revision
    served, _ = load_any(checkpoint)
    assert served.config.mod_layers == model.config.mod_layers
    # Of the last layer no vision token is read any more, so that its router learns nothing.
    *routers, _ = served.routers.parameters()
    assert routers
    assert all(weight.abs().max() > 0 for weight in routers)
    with torch.inference_mode():
        again = float(Objective(served, layout.silence)(batch)["live"])
        now = float(Objective(model.eval(), layout.silence)(batch)["live"])
    # Saved in half precision.
    assert again == pytest.approx(now, abs=0.1)
    assert again < 0.6 * first
    assert teacher_forced(served, layout, [_dialogue(folder)]).time_diff_s is None
    # What transformers loads is the model as it was, trained, and without routers.
    frames = reference.frames_of(N, model.config.image_size, 3)
    assert reference.says(tmp_path, frames, "What happens in the video?", 1.0, 4)


@pytest.mark.slow
def test_training_goes_on_from_trained_routers(folder: Path, tmp_path: Path) -> None:
    recipe = _recipe(folder, keep_ratio=0.5)
    model, layout, batch = _batch(folder, recipe, _dialogue(folder))
    trainer = Trainer(recipe, model, layout.silence)
    trainer.step(batch)
    save(model, trainer.plain_weights(), layout.tokenizer, tmp_path)
    # As ``longreel train`` leaves them: they are that run's, and not of the next one's model.
    for name in ("recipe.json", "metrics.json"):
        (tmp_path / name).write_text("{}")
    again = _recipe(tmp_path)
    further, layout, batch = _batch(tmp_path, again, _dialogue(folder))
    assert (further.config.router, further.config.keep_ratio) == ("bounded", 0.5)
    trainer = Trainer(again, further, layout.silence)
    trainer.step(batch)
    output = tmp_path / "next"
    output.mkdir()
    save(further, trainer.plain_weights(), layout.tokenizer, output)
    written = {file.name for file in output.iterdir()}
    assert written == {f.name for f in tmp_path.iterdir() if f.is_file()} - {
        "recipe.json",
        "metrics.json",
    }
    load_any(find_checkpoint(str(output)))
    (tmp_path / "routers.safetensors").unlink()
    with pytest.raises(UsageError, match=r"has no routers\.safetensors"):
        load_any(find_checkpoint(str(tmp_path)))


@pytest.fixture(scope="module")
def routed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run left whose router learned to keep half of the tokens, after the first layer."""
    made, output = tmp_path_factory.mktemp("made"), tmp_path_factory.mktemp("routed")
    reference.make("llava_onevision", made)
    model, layout = start(_recipe(made, router="bounded:after-1", keep_ratio=0.5))
    for router in model.routers.children():
        torch.nn.init.ones_(router.get_parameter("weight"))
    weights = {name: weight.detach() for name, weight in model.state_dict().items()}
    save(model, weights, layout.tokenizer, output)
    return output


@pytest.mark.parametrize(
    ("router", "goes_on", "anew"),
    [("bounded", ["1", "2"], []), ("bounded:all", ["1", "2"], ["0"]), ("bounded:2", ["2"], [])],
)
def test_routers_go_on_in_the_layers_that_they_had(
    routed: Path, router: str, goes_on: list[str], anew: list[str]
) -> None:
    """Guards against workers that fail where the recipe was taken, and a keep ratio that falls."""
    recipe = _recipe(routed, router=router)
    check_start(recipe)
    model, _ = start(recipe)
    assert model.config.keep_ratio == 0.5
    weights = {name: r.get_parameter("weight") for name, r in model.routers.named_children()}
    assert {name for name, weight in weights.items() if bool((weight == 1).all())} == set(goes_on)
    assert {name for name, weight in weights.items() if not weight.any()} == set(anew)


def test_a_router_of_another_kind_begins_anew(routed: Path) -> None:
    """Guards against scores of one kind that multiply as another's."""
    model, _ = start(_recipe(routed, router="learned"))
    for router in model.routers.children():
        weight = router.get_parameter("weight").detach()
        assert float(weight.std()) == pytest.approx(0.02, rel=0.5)
        assert float(weight.mean().abs()) < 0.02


def test_metrics_ask_for_each_narration(folder: Path) -> None:
    model, layout = start(_recipe(folder, keep_ratio=1.0))
    dialogue = replace(_dialogue(folder), texts=[None, "One.", None, None, TEXT])
    found = teacher_forced(model, layout, [dialogue])
    assert found.turns == 2
    assert found.time_diff_s is None
    assert 0.0 <= found.lm_correctness <= 1.0


@pytest.mark.parametrize(
    ("texts", "turns"), [([None] * 5, 2), ([None, "One.", None, "Two.", "Three."], 5)]
)
def test_metrics_count_each_answer_once(routed: Path, texts: list[str | None], turns: int) -> None:
    """Guards questions after the last narration, and those that every later one has before it."""
    model, layout = start(_recipe(routed))
    questions = (Turn(1, "How many?", "One."), Turn(5, "And now?", "Two."))
    dialogue = replace(_dialogue(routed), texts=texts, turns=questions)
    assert teacher_forced(model, layout, [dialogue]).turns == turns


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data": {"narrations": []}}, "data.narrations"),
        ({"model": {"router": "redundancy"}}, "one that learns"),
        ({"model": {"router": "bounded:nowhere"}}, "layers of model.router"),
        ({"model": {"start": "/nowhere"}}, "no model at"),
    ],
)
def test_a_recipe_that_cannot_work_is_refused_at_once(
    tmp_path_factory: pytest.TempPathFactory, change: dict[str, Any], said: str
) -> None:
    made = tmp_path_factory.mktemp("llava")
    reference.make("llava_onevision", made)
    recipe = _recipe(made)
    for part, fields in change.items():
        recipe = replace(recipe, **{part: replace(getattr(recipe, part), **fields)})
    with pytest.raises(UsageError, match=said):
        check_start(recipe)


@pytest.mark.slow
def test_the_config_beside_it_keeps_what_was_chosen(tmp_path: Path) -> None:
    made, output = tmp_path / "made", tmp_path / "out"
    made.mkdir()
    output.mkdir()
    reference.make("qwen2_5_vl", made)
    model, layout, _ = _batch(made, _recipe(made), _dialogue(made))
    trainer = Trainer(_recipe(made), model, layout.silence)
    save(model, trainer.plain_weights(), layout.tokenizer, output)
    chosen = json.loads((output / "config.json").read_text())["longreel"]
    assert chosen["picture_size"] == model.config.image_size
    assert chosen["keep_ratio"] == 0.2
