"""A plain session, one frame a forward: what the engine's words and caches are held to."""

from __future__ import annotations

import torch
from torch import Tensor

from mod.change import change
from mod.decoder import Stream, frames_before
from mod.engine.events import FrameOutcome
from mod.layout import StreamLayout
from mod.modeling import VideoLLMMoD


class PlainCache:
    """Keys and values of each layer, (heads, length, head_dim), joined as they come."""

    def __init__(self, n_layers: int) -> None:
        self._held: list[tuple[Tensor, Tensor] | None] = [None] * n_layers

    @property
    def lengths(self) -> list[int]:
        """Tokens held in each layer."""
        return [0 if held is None else held[0].shape[1] for held in self._held]

    @property
    def n_bytes(self) -> int:
        """Bytes held."""
        tensors = [t for held in self._held if held is not None for t in held]
        return sum(t.numel() * t.element_size() for t in tensors)

    def look(self, layer: int, queries: Tensor) -> None:
        """Nothing: what this cache shows does not depend on queries."""

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add to ``layer``; all that it holds then."""
        if (held := self._held[layer]) is not None:
            keys, values = torch.cat([held[0], keys], dim=1), torch.cat([held[1], values], dim=1)
        self._held[layer] = keys, values
        return keys, values

    def truncate(self, lengths: list[int]) -> None:
        """Forget everything after ``lengths`` tokens per layer."""
        for layer, (held, length) in enumerate(zip(self._held, lengths, strict=True)):
            if held is not None:
                self._held[layer] = held[0][:, :length], held[1][:, :length]


class PlainSession:
    """A stream in progress: no chunks, no pages, no company.

    A frame and its silence token are fed only when the model has decided.
    """

    def __init__(
        self,
        model: VideoLLMMoD,
        layout: StreamLayout,
        *,
        instruction: str | None = None,
        threshold: float = 0.0,
        max_new_tokens: int = 96,
    ) -> None:
        self._model, self._layout = model, layout
        self._threshold, self._max_new_tokens = threshold, max_new_tokens
        self.cache = PlainCache(model.config.text_config.num_hidden_layers)
        self.position = 0
        self._last: Tensor | None = None
        self._last_features: Tensor | None = None
        opening = instruction if instruction is not None else model.config.instruction
        self._feed_text(layout.ids(layout.opening(opening)))

    @torch.inference_mode()
    def watch(self, frames: Tensor) -> list[FrameOutcome]:
        """See ``frames`` (n, height, width, 3) uint8 one by one."""
        outcomes = []
        for frame in frames:
            features = self._model.encode_frames(
                frame[None], frames_before(frame[None], self._last)
            )
            self._last = frame
            before = frames_before(features, self._last_features)
            self._last_features = features[0]
            logits = self._feed(
                features[0], torch.zeros(1, dtype=torch.long), change(features, before)
            )
            silence = self._layout.silence
            p = float(logits.softmax(-1)[silence])
            if int(logits.argmax()) == silence and p >= self._threshold:
                self._feed_text([silence])
                outcomes.append(FrameOutcome(p, None))
            else:
                logits[silence] = -torch.inf
                outcomes.append(FrameOutcome(p, self._speak(logits)))
        return outcomes

    @torch.inference_mode()
    def ask(self, question: str) -> str:
        """Answer ``question``; it stays part of the stream."""
        ids = self._layout.ids(self._layout.question(question))
        return self._speak(self._feed_text(ids))

    def _speak(self, logits: Tensor) -> str:
        said: list[int] = []
        token = int(logits.argmax())
        while token != self._layout.end and len(said) < self._max_new_tokens:
            said.append(token)
            token = int(self._feed_text([token]).argmax())
        self._feed_text([self._layout.end])
        return self._layout.decode(said)

    def _feed_text(self, ids: list[int]) -> Tensor:
        with torch.inference_mode():
            return self._feed(
                self._model.embed_text(torch.tensor(ids)), torch.zeros(0, dtype=torch.long)
            )

    def _feed(self, tokens: Tensor, frame_starts: Tensor, change: Tensor | None = None) -> Tensor:
        """Feed tokens (n, D); float32 next-token logits after the last."""
        positions = torch.arange(self.position, self.position + len(tokens))
        stream = Stream(tokens, positions, frame_starts, [len(tokens)], [self.cache], change=change)
        self.position += len(tokens)
        logits: Tensor = self._model.logits(self._model(stream)[-1:])[0].float()
        return logits
