"""A recipe file that cannot work is refused with the name of what is wrong.

Guards against a misspelled field that a run of days ignores.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from longreel.errors import UsageError
from mod.checkpoint import TINY, find_checkpoint
from mod.loading import load
from mod.recipe import TrainRecipe, read_recipe, recipe_of
from mod.train import RECIPE


def test_the_bundled_recipe_is_the_default() -> None:
    """Guards the documented command: the file shows what the defaults do."""
    assert read_recipe(RECIPE) == TrainRecipe()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[training]\nstep = 3", r"\[training\] has no field 'step'; did you mean 'steps'"),
        ("[train]\nsteps = 3", r"no table \[train\]; did you mean 'training'"),
        ("[training]\nsteps = 'many'", r"\[training\].*steps"),
        ("[training]\nsteps = 0", "training.steps must be at least 1"),
        ("[training]\nprecision = 'float8'", "precision"),
        ("[data]\naugment = 1.5", "data.augment"),
        ("[data]\nframes = []", "data.frames"),
        ("[data]\nnarrations = ['x.jsonl']", "see_steps must be 0"),
        ("[scale]\nstrategy = 'magic'", "strategy"),
        ("[scale]\ngpus_per_worker = 4", "scale.gpus_per_worker must be 0 or 1, not 4"),
        ("[scale]\nthreads = 0", "scale.threads must be at least 1"),
        ("[scale]\nretries = -1", "scale.retries must be at least 0"),
        ("[training]\nseed = -1", "training.seed must be at least 0"),
        ("[training]\nsteps = 100", r"training.see_steps must be below training.steps \(100\)"),
        ("[training]\nsee_frames = 0", "training.see_frames must be at least 1"),
        ("[training]\nsee_frames = 1", "training.see_frames must be at least 2, not 1"),
        ("[training]\nwarmup = -3", "training.warmup must be at least 0"),
        ("[training]\nlearning_rate = 0", "training.learning_rate must be above 0, not 0"),
        ("[training]\nsee_rate = nan", "training.see_rate must be above 0, not nan"),
        ("[training]\nsilence_weight = -1", "training.silence_weight must be 0 or more"),
        ("[training]\nweight_decay = inf", "training.weight_decay must be 0 or more, not inf"),
        ("[data]\nlong_frames = 0", "data.long_frames must be at least 1"),
        ("[model]\ntrain = 'lora'", "see_steps must be 0 with model.train 'lora'"),
        ("[model]\nkeep_ratio = 1.5", r"model.keep_ratio must lie in \(0, 1\], not 1.5"),
        ("[model]\nlora_alpha = 0", "model.lora_alpha must be at least 1"),
        ("[model]\nvocab_size = 100", "model.vocab_size must be at least 261"),
        ("steps = 3", r"no table \[steps\]"),
        ("[", "not TOML"),
    ],
)
def test_what_cannot_work_is_named(tmp_path: Path, text: str, named: str) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=named) as failure:
        read_recipe(file)
    assert "\n" not in str(failure.value)


def test_the_bundled_model_was_trained_by_the_bundled_recipe() -> None:
    """Guards the model card: its command makes what is shipped, its curve ends where that ended."""
    folder = find_checkpoint(TINY).folder
    recorded, *curve = map(json.loads, (folder / "training.jsonl").read_text().splitlines())
    assert recipe_of(recorded, "training.jsonl") == read_recipe(RECIPE)
    assert curve[-1]["step"] == read_recipe(RECIPE).training.steps
    # An hour and a half, says the card.
    assert 4800 < curve[-1]["seconds"] < 6000


@pytest.mark.slow
def test_the_card_says_what_was_trained_and_how() -> None:
    folder = find_checkpoint(TINY).folder
    card = " ".join((folder / "README.md").read_text().split())
    recipe = read_recipe(RECIPE)
    steps, seeing = recipe.training.steps, recipe.training.see_steps
    model, _ = load(find_checkpoint(TINY))
    weights = sum(weight.numel() for weight in model.parameters())
    assert f"A VideoLLM-MoD with {weights / 1e6:.1f} million weights" in card
    assert f"The first {seeing:,} of {steps:,} steps".replace(",", " ") in card
    assert f"seed {recipe.training.seed}:" in card
    assert "python -m mod.train --output runs/tiny" in card


def test_the_recipes_of_the_docs_are_accepted() -> None:
    """Guards a reader who copies one."""
    page = (Path(__file__).parents[2] / "docs" / "train.md").read_text()
    blocks = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    assert len(blocks) >= 3
    for block in blocks:
        recipe_of(tomllib.loads(block), "docs/train.md")


def test_a_missing_file_is_named() -> None:
    with pytest.raises(UsageError, match=r"nowhere.toml: No such file"):
        read_recipe(Path("nowhere.toml"))


def test_whole_numbers_may_stand_for_fractions() -> None:
    assert recipe_of({"training": {"learning_rate": 1}}, "x").training.learning_rate == 1.0
