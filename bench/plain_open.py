"""The plain loop over an open model: transformers' own decoder, attention and cache, one step of
frames a forward, dense; what the engine is measured against, word for word."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import DynamicCache

from mod.adopted import AdoptedModel
from mod.attention import NAME
from mod.families.chat import ChatLayout
from mod.layout import Parts
from mod.places import FRAME, Cursor


@contextmanager
def own_attention(model: AdoptedModel) -> Iterator[None]:
    """The decoder attends as transformers has it, and not over the engine's streams."""
    model.decoder.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        model.decoder.set_attn_implementation(NAME)


class PlainChat:
    """One stream on the decoder of ``model``; to be used within ``own_attention``.

    Args:
        model: must route nothing.
        fps: frames a second.
    """

    def __init__(self, model: AdoptedModel, layout: ChatLayout, fps: float) -> None:
        self._model, self._layout, self._fps = model, layout, fps
        self._places, self._cursor = model.places(fps), Cursor()
        self._cache = DynamicCache(config=model.config.get_text_config())
        #: Text that goes with what comes next.
        self._lead: Parts = layout.opening(model.config.instruction)
        self._watching = False
        self.n_frames = 0

    @torch.inference_mode()
    def watch(self, frames: Tensor) -> None:
        """See ``frames`` (frames, side, side, 3), whole steps of them, one step after the other."""
        per_step = self._model.config.frames_per_step
        for step in torch.split(frames, per_step):
            seen = step.to(self._model.device)
            first, last = self.n_frames, self.n_frames + per_step - 1
            before = self._layout.before(
                first, last, self._fps, watching=self._watching, expected=None
            )
            ids = [*self._layout.ids([*self._lead, *before]), FRAME, *self._layout.after()]
            self._feed(ids, self._model.encode_frames(seen, seen)[0])
            self._lead, self._watching = [], True
            self.n_frames += per_step

    @torch.inference_mode()
    def ask(self, text: str, max_new_tokens: int) -> list[int]:
        """The tokens of a greedy answer, without the one that ends it; it stays in the stream."""
        question = self._layout.question(text, watching=self._watching)
        hidden = self._feed(self._layout.ids([*self._lead, *question]))
        said: list[int] = []
        token = int(self._model.logits(hidden[None])[0].argmax())
        while token not in self._layout.ends and len(said) < max_new_tokens:
            said.append(token)
            token = int(self._model.logits(self._feed([token])[None])[0].argmax())
        self._lead, self._watching = list(self._layout.closing), False
        return said

    def _feed(self, entries: Sequence[int], seen: Tensor | None = None) -> Tensor:
        """The last hidden state (D,) after entries; ``seen`` (tokens, D) stands for a frame."""
        device = self._model.device
        parts = [
            seen if entry == FRAME else self._model.embed_text(torch.tensor([entry], device=device))
            for entry in entries
        ]
        places = torch.tensor(self._places.tokens(entries, self._cursor), device=device)
        self._cursor = self._places.after(self._cursor, entries)
        out = self._model.decoder(
            inputs_embeds=torch.cat([part for part in parts if part is not None])[None],
            position_ids=places if len(places) == 1 else places[:, None],
            past_key_values=self._cache,
            use_cache=True,
        )
        hidden: Tensor = out.last_hidden_state[0, -1]
        return hidden
