"""One video stream and its conversation: watch frames, decide when to speak, answer questions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mod.cache import RaggedKVCache
from mod.layout import StreamLayout
from mod.modeling import Stream, VideoLLMMoD, frames_before

#: Frames of one speculative forward; it grows while the model stays silent.
MIN_CHUNK, MAX_CHUNK = 2, 32


@dataclass(frozen=True)
class FrameOutcome:
    """What the model decided at one frame.

    Attributes:
        p_silence: probability it gave to staying silent, 0-1.
        text: its narration, or None for silence.
    """

    p_silence: float
    text: str | None


class Session:
    """A stream in progress; owns the KV cache and the position counter.

    Frames are prefetched in chunks as if the model stayed silent after each; every decision is
    read from that one forward. Where the model wants to speak the cache is cut back to that
    frame, the narration is generated, and watching goes on: the words equal frame-by-frame.

    Args:
        instruction: text that opens the stream; the checkpoint's own when None.
        silence_threshold: silence is accepted only where its probability is the highest and at
            least this (0-1).
        max_new_tokens: bound on one narration or answer, in tokens.
    """

    def __init__(
        self,
        model: VideoLLMMoD,
        layout: StreamLayout,
        *,
        instruction: str | None = None,
        silence_threshold: float = 0.0,
        max_new_tokens: int = 96,
    ) -> None:
        self._model = model
        self._layout = layout
        self._threshold = silence_threshold
        self._max_new_tokens = max_new_tokens
        self._chunk = MIN_CHUNK
        self._device: torch.device = model.get_input_embeddings().weight.device
        self.cache = RaggedKVCache(model.config.text_config.num_hidden_layers)
        self.position = 0
        self.n_frames = 0
        self._last_frame: Tensor | None = None
        opening = instruction if instruction is not None else model.config.instruction
        self._feed_text(layout.opening(opening))

    @torch.inference_mode()
    def watch(self, frames: Tensor) -> list[FrameOutcome]:
        """See ``frames`` (frames, height, width, 3) uint8 and say what the model wants to say."""
        if not len(frames):
            return []
        frames = frames.to(self._device)
        features = self._model.encode_frames(frames, frames_before(frames, self._last_frame))
        self._last_frame = frames[-1]
        outcomes: list[FrameOutcome] = []
        while len(outcomes) < len(features):
            start = len(outcomes)
            outcomes += self._watch_chunk(features[start : start + self._chunk])
        self.n_frames += len(outcomes)
        return outcomes

    @torch.inference_mode()
    def ask(self, question: str) -> str:
        """Answer ``question`` about what was seen so far; it stays part of the stream."""
        hidden = self._feed_text(self._layout.question(question))
        return self._speak(self._model.logits(hidden[-1:])[0])

    def _watch_chunk(self, features: Tensor) -> list[FrameOutcome]:
        """Outcomes of the chunk up to and including the first frame the model speaks at."""
        n_frames, n, _ = features.shape
        before, lengths = self.position, self.cache.lengths
        silence = self._model.embed_text(torch.tensor([self._layout.silence], device=self._device))
        tokens = torch.cat([features, silence.expand(n_frames, 1, -1)], dim=1).flatten(0, 1)
        starts = torch.arange(n_frames, device=self._device) * (n + 1)
        hidden = self._feed(tokens, starts)
        logits = self._model.logits(hidden[starts + n - 1]).float()
        quiet = logits.softmax(-1)[:, self._layout.silence].tolist()
        best = logits.argmax(-1).tolist()
        outcomes: list[FrameOutcome] = []
        for i, p in enumerate(quiet):
            if best[i] == self._layout.silence and p >= self._threshold:
                outcomes.append(FrameOutcome(p, None))
                continue
            # Back to just after this frame's vision tokens: its silence and all that follows go.
            config = self._model.config
            self.position = before + i * (n + 1) + n
            self.cache.truncate(
                [
                    length + i * (config.tokens_in_layer(layer) + 1) + config.tokens_in_layer(layer)
                    for layer, length in enumerate(lengths)
                ]
            )
            first = logits[i].clone()
            first[self._layout.silence] = -torch.inf
            outcomes.append(FrameOutcome(p, self._speak(first)))
            self._chunk = max(MIN_CHUNK, self._chunk // 2)
            return outcomes
        self._chunk = min(MAX_CHUNK, self._chunk * 2)
        return outcomes

    def _speak(self, logits: Tensor) -> str:
        """Greedy words from ``logits`` on, closed by the end mark whatever happens."""
        said: list[int] = []
        token = int(logits.argmax())
        while token != self._layout.end and len(said) < self._max_new_tokens:
            said.append(token)
            hidden = self._feed_text([token])
            token = int(self._model.logits(hidden[-1:])[0].argmax())
        self._feed_text([self._layout.end])
        return self._layout.decode(said)

    def _feed_text(self, ids: list[int]) -> Tensor:
        with torch.inference_mode():
            embeddings = self._model.embed_text(torch.tensor(ids, device=self._device))
            nowhere = torch.zeros(0, dtype=torch.long, device=self._device)
            return self._feed(embeddings, nowhere)

    def _feed(self, tokens: Tensor, frame_starts: Tensor) -> Tensor:
        positions = torch.arange(self.position, self.position + len(tokens), device=self._device)
        stream = Stream(tokens, positions, frame_starts, [len(tokens)], [self.cache])
        hidden: Tensor = self._model(stream)
        self.position += len(tokens)
        return hidden
