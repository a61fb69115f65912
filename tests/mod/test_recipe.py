"""A recipe file that cannot work is refused with the name of what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from longreel.errors import UsageError
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


def test_a_missing_file_is_named() -> None:
    with pytest.raises(UsageError, match=r"nowhere.toml: No such file"):
        read_recipe(Path("nowhere.toml"))


def test_whole_numbers_may_stand_for_fractions() -> None:
    assert recipe_of({"training": {"learning_rate": 1}}, "x").training.learning_rate == 1.0
