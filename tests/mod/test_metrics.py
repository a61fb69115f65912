"""Teacher-forced metrics: perfect for the model's own words, worse for others, late when late."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mod.checkpoint import TINY, find_checkpoint
from mod.dialogue import Dialogue, Turn
from mod.engine.viewer import Viewer
from mod.layout import StreamLayout
from mod.loading import load
from mod.metrics import teacher_forced
from mod.modeling import VideoLLMMoD
from mod.world.dialogues import watch


@pytest.fixture(scope="module")
def tiny() -> tuple[VideoLLMMoD, StreamLayout]:
    return load(find_checkpoint(TINY))


@pytest.fixture(scope="module")
def own_words(tiny: tuple[VideoLLMMoD, StreamLayout]) -> Dialogue:
    """A stream with just what the model says of it, and its answer to a question."""
    frames = watch(5, 40).frames
    viewer = Viewer(*tiny)
    texts = [outcome.text for outcome in viewer.watch(torch.from_numpy(frames))]
    question = "How did it begin?"
    turn = Turn(len(frames), question, viewer.ask(question))
    assert sum(text is not None for text in texts) >= 3
    return Dialogue(frames, texts, (turn,))


@pytest.mark.slow
def test_what_the_model_says_itself_is_right_in_every_way(
    tiny: tuple[VideoLLMMoD, StreamLayout], own_words: Dialogue
) -> None:
    """Guards that training, metrics and sessions lay a stream out alike."""
    found = teacher_forced(*tiny, [own_words])
    assert (found.fluency, found.lm_correctness, found.time_diff_s) == (1.0, 1.0, 0.0)
    assert found.turns == sum(t is not None for t in own_words.texts) + 1
    assert 1.0 <= found.lm_ppl < 3.0


@pytest.mark.slow
def test_where_nothing_is_narrated_nothing_is_on_time(
    tiny: tuple[VideoLLMMoD, StreamLayout], own_words: Dialogue
) -> None:
    """Guards against a perfect score for footage that has questions alone."""
    silent: list[str | None] = [None] * len(own_words.texts)
    assert teacher_forced(*tiny, [replace(own_words, texts=silent)]).time_diff_s is None


@pytest.mark.slow
def test_wrong_words_cost_correctness_and_not_time(
    tiny: tuple[VideoLLMMoD, StreamLayout], own_words: Dialogue
) -> None:
    """Guards against one figure that moves with what the other is about."""
    texts = [t and "Zebras everywhere." for t in own_words.texts]
    found = teacher_forced(*tiny, [replace(own_words, texts=texts, turns=())])
    assert found.lm_correctness < 0.2
    assert found.fluency < 1.0
    assert found.lm_ppl > 5.0


def test_narrations_said_late_or_early_cost_time(
    tiny: tuple[VideoLLMMoD, StreamLayout], own_words: Dialogue
) -> None:
    """The first narration is moved; the model would still speak at the opening frame."""
    opening = next(t for t in own_words.texts if t)
    frames = own_words.frames[:1].repeat(9, 0)
    for shift in (0, 3, 8):
        texts: list[str | None] = [None] * 9
        texts[shift] = opening
        found = teacher_forced(*tiny, [Dialogue(frames, texts)])
        assert found.time_diff_s == shift / 2.0
