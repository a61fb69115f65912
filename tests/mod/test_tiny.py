"""The bundled checkpoint: small, loadable, and right more often than not.

Guards against a bundled model that is large, silent or wrong, and a name that is not one.
"""

from __future__ import annotations

import json
from itertools import islice

import pytest
import torch

from longreel.errors import UsageError
from mod.checkpoint import TINY, find_checkpoint
from mod.evaluate import Run, evaluate, parse_look, score
from mod.loading import load
from mod.recipe import read_recipe
from mod.sequences import Batches, GeneratedWorld
from mod.start import start
from mod.tiny import tiny_config
from mod.train import RECIPE, Curve
from mod.trainer import Trainer
from mod.world.questions import QUESTIONS
from mod.world.streams import World
from mod.world.words import MOTIONS, Look


def test_the_checkpoint_is_small_and_of_the_documented_geometry() -> None:
    checkpoint = find_checkpoint(TINY)
    assert sum(f.stat().st_size for f in checkpoint.folder.iterdir()) <= 12e6
    model, layout = load(checkpoint)
    assert model.config.mod_layers == [1, 3, 5]
    assert model.config.tokens_in_layer(1) == 2
    expected = tiny_config(len(layout.tokenizer)).text_config.to_dict()
    have = model.config.text_config.to_dict()
    for name in ("hidden_size", "num_hidden_layers", "num_key_value_heads", "vocab_size"):
        assert have[name] == expected[name]


@pytest.mark.slow
@pytest.mark.parametrize("n_streams", [20, pytest.param(40, marks=pytest.mark.long)])
def test_narrations_of_unseen_streams_are_right_more_often_than_not(n_streams: int) -> None:
    """Guards against a checkpoint that speaks well and sees nothing."""
    scores = evaluate(*load(find_checkpoint(TINY)), n_streams=n_streams)
    assert scores.cut_f1 >= 0.8, scores
    assert scores.level_accuracy >= 0.8, scores
    assert scores.colour_accuracy >= 0.8, scores
    assert scores.move_precision >= 0.6, scores
    assert scores.move_chance <= 0.4, scores
    assert scores.move_recall >= 0.5, scores
    assert scores.thing_precision >= 0.75, scores
    assert scores.thing_recall >= 0.65, scores
    assert scores.answers >= 0.35, scores


@pytest.mark.slow
@pytest.mark.long
def test_the_documented_command_begins_as_the_recorded_run_did() -> None:
    """Guards what the card promises: a world, a tokenizer or a start that is no more the one that
    the shipped weights came from.
    """
    recorded = json.loads(
        (find_checkpoint(TINY).folder / "training.jsonl").read_text().splitlines()[1]
    )
    recipe = read_recipe(RECIPE)
    model, layout = start(recipe)
    trainer, curve = Trainer(recipe, model, layout.silence), Curve()
    batches = Batches(recipe, GeneratedWorld(recipe), layout, model.config)
    for step in range(recorded["step"]):
        line = curve.add(step + 1, trainer.step(batches.batch(step)))
    assert line is not None
    for name in ("perception", "norm"):
        assert line[name] == pytest.approx(recorded[name], rel=0.01)


@pytest.mark.slow
def test_scores_of_a_perfect_and_of_a_silent_narrator() -> None:
    """Guards the measure itself: the world's own words score 1, silence scores 0."""
    runs = []
    for seed in range(8):
        world = iter(World(seed))
        samples = [next(world) for _ in range(40)]
        question = list(QUESTIONS)[seed % len(QUESTIONS)]
        answer = QUESTIONS[question]([s.text for s in samples if s.text])
        runs.append(Run(samples, [s.text for s in samples], question, answer))
    best = score(runs)
    assert (best.cut_f1, best.level_accuracy, best.colour_accuracy) == (1.0, 1.0, 1.0)
    assert best.move_precision == 1.0
    # One statement a sample: cuts, looks and things come before motion.
    assert best.move_recall > 0.7
    assert best.thing_precision == 1.0
    assert best.thing_recall > 0.9
    assert (best.answers, best.own_answers) == (1.0, 1.0)
    silent = score([Run(r.samples, [None] * 40, r.question, "") for r in runs])
    assert (silent.cut_f1, silent.move_recall, silent.thing_recall) == (0.0, 0.0, 0.0)
    assert silent.narrated == 0.0
    assert silent.answers == 0.0


@pytest.mark.slow
def test_one_motion_said_all_the_time_scores_as_chance() -> None:
    """Guards the motion score against narrators who need not look."""
    samples = [sample for seed in range(20) for sample in islice(World(seed), 40)]
    constant = Run(samples, [MOTIONS["left"]] * len(samples), next(iter(QUESTIONS)), "")
    scores = score([constant])
    assert scores.move_precision < 0.25 < scores.move_chance


def test_looks_are_read_back_from_narrations() -> None:
    assert parse_look("Cut to a dark blue scene.") == Look("dark", "blue")
    assert parse_look("An orange scene.") == Look("", "orange")
    assert parse_look("The picture fades to black.") == Look("black", "black")
    assert parse_look("The picture turns bright grey.") == Look("bright", "grey")
    assert parse_look(MOTIONS["still"]) is None


def test_no_such_model_is_one_clear_error() -> None:
    with pytest.raises(UsageError, match="no model at 'nowhere'"):
        find_checkpoint("nowhere")


def test_a_keep_ratio_that_cannot_work_is_refused_at_loading() -> None:
    with pytest.raises(UsageError, match="keep_ratio must lie in"):
        load(find_checkpoint(TINY), 1.5)


@pytest.mark.slow
def test_greedy_words_are_the_same_every_time() -> None:
    """Guards the rows' reproducibility: same frames, same words."""
    model, layout = load(find_checkpoint(TINY))
    first = evaluate(model, layout, n_streams=1, n_frames=12)
    torch.manual_seed(99)
    assert evaluate(model, layout, n_streams=1, n_frames=12) == first
