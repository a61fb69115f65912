"""A plain session with a window, one input at a time: what the engine's words are held to.

It keeps every key as it was first made and rotates it afresh, in double precision and by a
formula of its own, whenever it is read: nothing adds up.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mod.change import change
from mod.decoder import Stream, frames_before
from mod.engine.log import FRAME
from mod.engine.policy import Window
from mod.layout import MarkedLayout, StreamLayout
from mod.modeling import VideoLLMMoD


@dataclass(eq=False)
class Entry:
    """A token of text or a frame, where it was fed and where it lies now."""

    token: int
    size: int
    fed_at: int
    lies_at: int
    counts: bool
    there: bool = True


def turned(keys: Tensor, by: Tensor, theta: float = 10_000.0) -> Tensor:
    """(heads, tokens, head_dim) keys at positions ``by`` (tokens,) further on."""
    half = keys.shape[-1] // 2
    angles = by.double()[:, None] * theta ** (-torch.arange(half).double() / half)
    a, b = keys[..., :half].double(), keys[..., half:].double()
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).to(keys.dtype)


class Remembering:
    """Keys as they were made, the entry that each belongs to, and values."""

    def __init__(self, model: VideoLLMMoD) -> None:
        self.model = model
        self.feeding: list[Entry] = []
        layers = range(model.config.text_config.num_hidden_layers)
        self.held: list[list[tuple[Entry, Tensor, Tensor]]] = [[] for _ in layers]

    def look(self, layer: int, queries: Tensor) -> None:
        """Nothing."""

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        start = 0
        for entry in self.feeding:
            n = self.model.config.tokens_in_layer(layer) if entry.token == FRAME else 1
            self.held[layer].append(
                (entry, keys[:, start : start + n], values[:, start : start + n])
            )
            start += n
        assert start == keys.shape[1]
        self.held[layer] = [row for row in self.held[layer] if row[0].there]
        entries, fed, seen = zip(*self.held[layer], strict=True)
        moved = torch.tensor([entry.lies_at - entry.fed_at for entry in entries])
        by = moved.repeat_interleave(torch.tensor([keys.shape[1] for keys in fed]))
        return turned(torch.cat(fed, dim=1), by), torch.cat(seen, dim=1)


class ForgetfulSession:
    """Frames and questions one by one, as the window's docstring tells it."""

    def __init__(
        self, model: VideoLLMMoD, layout: StreamLayout, policy: Window, max_new_tokens: int
    ) -> None:
        assert isinstance(layout, MarkedLayout)
        self.model, self.layout, self.policy = model, layout, policy
        self.max_new_tokens = max_new_tokens
        self.cache = Remembering(model)
        self.sinks: list[Entry] = []
        self.words: list[Entry] = []
        self.blocks: list[list[Entry]] = []
        self.open: list[Entry] = []
        self.pending = layout.opening(model.config.instruction)
        self.n_opening = len(self.pending)
        self.last: Tensor | None = None
        self.last_features: Tensor | None = None
        #: Probability of silence at each frame.
        self.p_silence: list[float] = []

    @torch.inference_mode()
    def watch(self, frame: Tensor) -> str | None:
        """See one frame (1, height, width, 3)."""
        self._settle()
        features = self.model.encode_frames(frame, frames_before(frame, self.last))
        self.last = frame[0]
        pending, self.pending = self.pending, []
        logits = self._feed([*pending, FRAME], features[0], prefix=len(pending))
        self.p_silence.append(float(logits.softmax(-1)[self.layout.silence]))
        if int(logits.argmax()) == self.layout.silence:
            self._feed([self.layout.silence])
            return None
        logits[self.layout.silence] = -torch.inf
        return self._speak(logits)

    @torch.inference_mode()
    def ask(self, text: str) -> str:
        self._settle()
        pending, self.pending = self.pending, []
        ids = [*pending, *self.layout.question(text)]
        return self._speak(self._feed(ids, prefix=len(pending)))

    def alive(self) -> list[Entry]:
        """All that is kept, in order."""
        blocks = [entry for block in self.blocks for entry in block]
        return [*self.sinks, *self.words, *blocks, *self.open]

    def _speak(self, logits: Tensor) -> str:
        said: list[int] = []
        token = int(logits.argmax())
        while token != self.layout.end and len(said) < self.max_new_tokens:
            said.append(token)
            token = int(self._feed([token]).argmax())
        self.pending = [self.layout.end]
        return self.layout.decode(said)

    def _feed(self, ids: list[int], features: Tensor | None = None, prefix: int = 0) -> Tensor:
        """Next-token logits after ``ids``."""
        parts, entries, starts = [], [], []
        here = sum(entry.size for entry in self.alive())
        first = here
        for number, token in enumerate(ids):
            if token in (FRAME, self.layout.user) and self._full():
                self.blocks.append(self.open)
                self.open = []
            if token == FRAME:
                assert features is not None
                starts.append(here - first)
                part = features
            else:
                part = self.model.embed_text(torch.tensor([token]))
            counts = number >= prefix and token not in (FRAME, self.layout.silence)
            entry = Entry(token, len(part), here, here, counts)
            entries.append(entry)
            parts.append(part)
            self.open.append(entry)
            here += len(part)
        self.cache.feeding = entries
        changes = None
        if features is not None:
            changes = change(features[None], frames_before(features[None], self.last_features))
            self.last_features = features
        stream = Stream(
            torch.cat(parts),
            torch.arange(first, here),
            torch.tensor(starts, dtype=torch.long),
            [here - first],
            [self.cache],
            change=changes,
        )
        return self.model.logits(self.model(stream)[-1:])[0].float()

    def _full(self) -> bool:
        text = sum(entry.counts for entry in self.open)
        frames = sum(entry.token == FRAME for entry in self.open)
        return frames >= self.policy.block or text >= self.policy.text

    def _settle(self) -> None:
        most = self.policy.frames // self.policy.block
        if len(self.blocks) + self._full() <= most:
            return
        self.blocks.append(self.open)
        self.open = []
        if not self.sinks:
            while sum(e.size for e in self.sinks) < max(self.policy.sinks, self.n_opening):
                self.sinks.append(self.blocks[0].pop(0))
        for entry in self.blocks.pop(0):
            if entry.token in (FRAME, self.layout.silence):
                entry.there = False
            else:
                self.words.append(entry)
        if len(self.words) > self.policy.text:
            stay = self.words[-(self.policy.text // 2) :]
            before = self.words[-(self.policy.text // 2) - 1]
            marks = [before, *stay][:-1]
            ends = [i for i, entry in enumerate(marks) if entry.token == self.layout.end]
            stay = stay[ends[0] :] if ends else stay
            for entry in self.words[: len(self.words) - len(stay)]:
                entry.there = False
            self.words = stay
        place = 0
        for entry in self.alive():
            entry.lies_at = place
            place += entry.size
