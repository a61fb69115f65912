"""The scores of what a model says, whatever that is."""

from __future__ import annotations

from itertools import islice

import pytest

from mod import evaluate as module
from mod.evaluate import Run, evaluate, score
from mod.world.questions import QUESTIONS, how_it_began
from mod.world.streams import World
from tests.mod.small import small_layout, small_model

BEGAN = next(question for question, rule in QUESTIONS.items() if rule is how_it_began)


def test_words_from_which_no_answer_follows_are_wrong() -> None:
    """Guards a finished training: narrations may name a look that no rule can read."""
    samples = list(islice(World(1), 2))
    found = score([Run(samples, ["A x7 scene.", None], BEGAN, "It was x7.")])
    assert (found.answers, found.own_answers, found.narrated) == (0.0, 0.0, 0.5)


def test_all_streams_have_room_for_what_makes_sense(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards large models: streams that are watched at once outgrow a room of fixed size."""
    room: list[int] = []

    def engine(model: object, layout: object, memory: object) -> None:
        raise RuntimeError("seen")

    def memory(config: object, capacity: int, **options: object) -> None:
        room.append(capacity)

    monkeypatch.setattr(module, "CAPACITY_BYTES", 1)
    monkeypatch.setattr(module, "Memory", memory)
    monkeypatch.setattr(module, "Engine", engine)
    model = small_model()
    for n_streams in (1, 3):
        with pytest.raises(RuntimeError, match="seen"):
            evaluate(model, small_layout(model.config), n_streams=n_streams, n_frames=4)
    assert room[1] == 3 * room[0] > 3
