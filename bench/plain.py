"""The plain loop that demos of streaming video models run: one stream, one frame a forward, dense.

Hugging Face's own model with its own cache; what the engine is measured against, word for word.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from mod.decoder import frames_before
from mod.layout import StreamLayout
from mod.modeling import VideoLLMMoD


@dataclass(frozen=True)
class Said:
    """A narration: the frame it began at, and its token ids."""

    frame: int
    tokens: list[int]


class PlainLoop:
    """One stream on the unmodified language model of ``model``, with transformers' own attention.

    Args:
        model: must route nothing.
    """

    def __init__(self, model: VideoLLMMoD, layout: StreamLayout, *, max_new_tokens: int) -> None:
        self._model, self._layout = model, layout
        self._lm = model.language_model
        self._max_new_tokens = max_new_tokens
        self._cache = DynamicCache(config=self._lm.config)
        self._last: Tensor | None = None
        #: Said, and not through the decoder yet: it goes with the next frame, as demos have it.
        self._lead: list[int] = []
        self._feed(self._words(layout.ids(layout.opening(model.config.instruction))))
        self.said: list[Said] = []
        self.n_frames = 0

    @torch.inference_mode()
    def watch(self, frames: Tensor) -> None:
        """See ``frames`` one by one, and say what is to be said."""
        for frame in frames:
            before = frames_before(frame[None], self._last)
            self._last = frame
            seen, before = frame[None].to(self._model.device), before.to(self._model.device)
            features = self._model.encode_frames(seen, before)[0]
            if self._lead:
                features = torch.cat([self._words(self._lead), features])
            token = int(self._feed(features).argmax())
            self._lead = [token]
            if token != self._layout.silence:
                tokens: list[int] = []
                while token != self._layout.end and len(tokens) < self._max_new_tokens:
                    tokens.append(token)
                    token = int(self._feed(self._words([token])).argmax())
                self._lead = [self._layout.end]
                self.said.append(Said(self.n_frames, tokens))
            self.n_frames += 1

    def _words(self, ids: list[int]) -> Tensor:
        return self._model.embed_text(torch.tensor(ids, device=self._model.device))

    @torch.inference_mode()
    def _feed(self, embeddings: Tensor) -> Tensor:
        """Next-token logits after ``embeddings``."""
        out = self._lm(
            inputs_embeds=embeddings[None],
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = out.logits[0, -1]
        return logits
