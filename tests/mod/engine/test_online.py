"""VideoLLM-online as it was published: the words of its demo's own loop, by the engine.

Guards against a layout, a decision or a cut that differs from what its adapter was taught.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

from mod.attention import NAME
from mod.batches import IGNORE, collate
from mod.dialogue import Dialogue, Turn
from mod.engine.cache import Memory
from mod.engine.engine import Engine
from mod.engine.events import Event, FrameSeen, TurnEnded
from mod.layout import OnlineLayout, StreamLayout, train_tokenizer
from mod.modeling import VideoLLMMoD
from mod.world.dialogues import corpus
from tests.mod.small import small_config, some_frames

MOST = 6
QUESTION = "What moved left?"


class Demo:
    """The published demo's loop, on plain transformers, one frame at a time.

    Source: VideoLLM-online's ``demo/inference.py``.
    """

    def __init__(self, model: VideoLLMMoD, layout: OnlineLayout, threshold: float) -> None:
        self.model, self.tokenizer, self.threshold = model, layout.tokenizer, threshold
        self.comma, self.eos = layout.silence, layout.end
        self.lm = model.language_model
        self.cache = DynamicCache(config=self.lm.config)
        start = f"{model.config.instruction}\n\n["
        self.last = [layout.begin, *self.words(start)]
        self.first = True
        self.log: list[tuple[int, str | None]] = []
        self.answers: list[str] = []

    def words(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def feed(self, embeddings: Tensor) -> Tensor:
        out = self.lm(inputs_embeds=embeddings[None], past_key_values=self.cache, use_cache=True)
        return out.logits[0, -1]

    def frame(self, picture: Tensor) -> None:
        if not self.first and self.last == [self.eos]:
            self.last = [self.eos, *self.words("\n[")]
        self.first = False
        seen = self.model.encode_frames(picture[None], picture[None])[0]
        words = self.model.embed_text(torch.tensor(self.last))
        score = self.feed(torch.cat([words, seen])).softmax(-1)
        if score[self.comma] < self.threshold:
            score[self.comma] = 0.0
        if int(score.argmax()) == self.comma:
            self.last = [self.comma]
            self.log.append((len(self.log), None))
            return
        self.last = self.words("]\nAssistant:")
        self.log.append((len(self.log), self.respond()))

    def ask(self, text: str) -> None:
        self.last = self.words(f"]\nUser: {text}\nAssistant:")
        self.answers.append(self.respond())

    def respond(self) -> str:
        said: list[int] = []
        ids = self.last
        while True:
            token = int(self.feed(self.model.embed_text(torch.tensor(ids))).argmax())
            if token == self.eos or len(said) == MOST:
                break
            said.append(token)
            ids = [token]
        self.last = [self.eos]
        text: str = self.tokenizer.decode(said, skip_special_tokens=True)
        return text.strip()


@pytest.fixture(scope="module")
def published() -> tuple[VideoLLMMoD, OnlineLayout]:
    """A model with random weights that speaks at some frames and not at others."""
    config = small_config(
        router="none", layout="online", silence_token=",", instruction="Be of help."
    )
    layout = StreamLayout.of(
        train_tokenizer([*corpus(), "User: Assistant: ],["], config, 400), config
    )
    assert isinstance(layout, OnlineLayout)
    torch.manual_seed(3)
    model = VideoLLMMoD(config).eval()
    for parameter in model.language_model.parameters():
        torch.nn.init.normal_(parameter, std=0.3) if parameter.ndim > 1 else None
    with torch.no_grad():
        model.language_model.lm_head.weight[layout.silence] *= 3.0
    return model, layout


@contextmanager
def _plainly(model: VideoLLMMoD) -> Iterator[None]:
    """Its language model as transformers runs it."""
    model.language_model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.language_model.set_attn_implementation(NAME)


def run(engine: Engine) -> list[Event]:
    events = []
    while engine.busy:
        events += engine.step()
    return events


def told(events: list[Event]) -> list[tuple[int, str | None]]:
    said = {e.frame: e.text for e in events if isinstance(e, TurnEnded) and e.question is None}
    return [(e.frame, said.get(e.frame)) for e in events if isinstance(e, FrameSeen)]


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
    with _plainly(model):
        demo = Demo(model, layout, threshold)
        for picture in frames:
            demo.frame(picture)
    assert spoken == demo.log
    assert {text is None for _, text in spoken} == {True, False}


@torch.inference_mode()
def test_an_answer_is_that_of_the_demo(published: tuple[VideoLLMMoD, OnlineLayout]) -> None:
    model, layout = published
    frames = some_frames(24, seed=1)
    with _plainly(model):
        demo = Demo(model, layout, 0.0)
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
