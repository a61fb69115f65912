"""A model in VideoLLM-online's layout, and its published demo's loop on plain transformers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import DynamicCache

from mod.attention import NAME
from mod.layout import OnlineLayout, StreamLayout, train_tokenizer
from mod.modeling import VideoLLMMoD
from mod.world.dialogues import corpus
from tests.mod.small import small_config


class Demo:
    """The published demo's loop, on plain transformers, one frame at a time.

    Source: VideoLLM-online's ``demo/inference.py``.
    """

    def __init__(
        self, model: VideoLLMMoD, layout: OnlineLayout, threshold: float, most: int
    ) -> None:
        self.most = most
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
            if token == self.eos or len(said) == self.most:
                break
            said.append(token)
            ids = [token]
        self.last = [self.eos]
        text: str = self.tokenizer.decode(said, skip_special_tokens=True)
        return text.strip()


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
def plainly(model: VideoLLMMoD) -> Iterator[None]:
    """Its language model as transformers runs it."""
    model.language_model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.language_model.set_attn_implementation(NAME)
