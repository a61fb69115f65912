"""VideoLLM-online as it was published: the words of its demo's own loop, by the engine.

Guards against a layout, a decision or a cut that differs from what its adapter was taught.
"""

from __future__ import annotations

import pytest
import torch

from mod.batches import IGNORE, collate
from mod.dialogue import Dialogue, Turn
from mod.engine.cache import Memory
from mod.engine.engine import Engine
from mod.engine.events import Event, FrameSeen, TurnEnded
from mod.layout import OnlineLayout
from mod.modeling import VideoLLMMoD
from tests.mod import online
from tests.mod.small import some_frames

MOST = 6
QUESTION = "What moved left?"


@pytest.fixture(scope="module")
def published() -> tuple[VideoLLMMoD, OnlineLayout]:
    return online.published()


def run(engine: Engine) -> list[Event]:
    events = []
    while engine.busy:
        events += engine.step()
    return events


def told(events: list[Event]) -> list[tuple[int, str | None]]:
    said = {e.frame: e.text for e in events if isinstance(e, TurnEnded) and e.question is None}
    return [(e.frame, said.get(e.frame)) for e in events if isinstance(e, FrameSeen)]


@pytest.mark.slow
@pytest.mark.parametrize("threshold", [0.0, 0.725])
@pytest.mark.parametrize("size", [1, 5, 24])
@torch.inference_mode()
def test_words_are_those_of_the_demo(
    published: tuple[VideoLLMMoD, OnlineLayout], size: int, threshold: float
) -> None:
    model, layout = published
    frames = some_frames(24, seed=1)
    engine = Engine(model, layout, Memory(model.config, 2**26))
    engine.open("s", threshold=threshold, max_new_tokens=MOST)
    events = []
    for start in range(0, len(frames), size):
        engine.push("s", frames[start : start + size])
        events += run(engine)
    spoken = told(events)
    with online.plainly(model):
        demo = online.Demo(model, layout, threshold, MOST)
        for picture in frames:
            demo.frame(picture)
    assert spoken == demo.log
    assert {text is None for _, text in spoken} == {True, False}


@torch.inference_mode()
def test_an_answer_is_that_of_the_demo(published: tuple[VideoLLMMoD, OnlineLayout]) -> None:
    model, layout = published
    frames = some_frames(24, seed=1)
    with online.plainly(model):
        demo = online.Demo(model, layout, 0.0, MOST)
        while not demo.log or demo.log[-1][1] is not None:
            demo.frame(frames[len(demo.log)])
        demo.ask(QUESTION)
        demo.frame(frames[len(demo.log)])
    engine = Engine(model, layout, Memory(model.config, 2**26))
    engine.open("s", max_new_tokens=MOST)
    engine.push("s", frames[: len(demo.log) - 1])
    engine.ask("s", "q", QUESTION)
    engine.push("s", frames[len(demo.log) - 1 : len(demo.log)])
    events = run(engine)
    assert [e.text for e in events if isinstance(e, TurnEnded) and e.question] == demo.answers
    assert told(events) == demo.log


def test_it_learns_in_the_layout_that_it_speaks_in(
    published: tuple[VideoLLMMoD, OnlineLayout],
) -> None:
    model, layout = published
    frames = some_frames(3).numpy()
    dialogue = Dialogue(frames, [None, "A cut.", None], (Turn(3, QUESTION, "Nothing."),))
    batch = collate([dialogue], layout, model.config)
    n = model.config.tokens_per_frame
    starts = batch.frame_starts.tolist()
    ids, labels = batch.token_ids.tolist(), batch.labels.tolist()
    assert labels[starts[0] + n - 1] == layout.silence
    assert ids[starts[0] + n] == layout.silence
    close, *_ = layout.encode("]\nAssistant: A cut.")
    assert labels[starts[1] + n - 1] == close
    text = layout.decode(ids[starts[1] + n : starts[2]])
    assert text == "]\nAssistant: A cut.\n["
    after = layout.decode(ids[starts[2] + n :])
    # The comma is a mark of this tokenizer, which are not decoded.
    assert after == f"]\nUser: {QUESTION}\nAssistant: Nothing."
    asked = starts[2] + n + 1
    assert labels[asked] == IGNORE
