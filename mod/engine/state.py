"""One session as the engine holds it: what is committed, what waits, what is being said."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from mod.decoder import frames_before
from mod.engine.blocks import Block
from mod.engine.cache import PagedCache
from mod.engine.kept import KeptTokens
from mod.engine.log import StreamLog
from mod.engine.policy import Full, Past, Policy
from mod.engine.recall import Recall
from mod.engine.speculation import Speculation
from mod.layout import Parts
from mod.places import Cursor, Places

#: Frames that the tower sees at once where they wait, however small chunks are.
ENCODED_AHEAD = 64
#: Tokens of text that go through the model in one step, of a session whose next input has more:
#: a live session waits for the whole step.
MOST_TEXT = 256


@dataclass
class FrameRun:
    """Consecutive frames that wait.

    Attributes:
        pixels: (frames, height, width, 3) uint8.
        last: the frame before the first of them, if there was one.
        arrivals: how many of them arrived together, and when; the oldest first.
        features: of the first steps, as far as they were encoded, (n, tokens, D). A step is a
            frame, or the several that the model sees as one.
    """

    pixels: Tensor
    last: Tensor | None
    arrivals: deque[tuple[int, float]]
    features: Tensor | None = None

    @classmethod
    def of(cls, frames: Tensor, last: Tensor | None, since: float) -> FrameRun:
        """Frames that arrived together."""
        return cls(frames, last, deque([(len(frames), since)]))

    @property
    def since(self) -> float:
        """When the oldest of them arrived."""
        return self.arrivals[0][1]

    @property
    def n_encoded(self) -> int:
        """Steps that the tower has seen, the first of all."""
        return 0 if self.features is None else len(self.features)

    def to_encode(
        self, steps: int, frames_per_step: int, *, begun: bool
    ) -> tuple[Tensor, Tensor] | None:
        """Frames of the first ``steps`` steps without features, and the frame before each.

        Args:
            begun: whether the first step begins with the frame before the first.
        """
        seen = self.pixels[: steps * frames_per_step]
        if begun:
            assert self.last is not None
            seen = torch.cat([self.last[None], seen])
        first = self.n_encoded * frames_per_step
        whole = min(steps, len(seen) // frames_per_step) * frames_per_step
        if first >= whole:
            return None
        new = seen[first:whole]
        return new, frames_before(new, seen[first - 1] if first else self.last)

    def extend(self, frames: Tensor, since: float) -> None:
        """More frames come after the last."""
        self.pixels = torch.cat([self.pixels, frames])
        self.arrivals.append((len(frames), since))

    def split(self, count: int) -> tuple[FrameRun, FrameRun]:
        """The ``count`` frames that end the first step alone, and the rest."""
        done = self.features
        alone = None if done is None else done[:1]
        first = FrameRun(self.pixels[:count], self.last, self._arrived(count), alone)
        rest = FrameRun(self.pixels[count:], self.pixels[count - 1], self.arrivals)
        if done is not None and len(done) > 1:
            rest.features = done[1:]
        return first, rest

    def drop(self, count: int, steps: int) -> None:
        """The first ``count`` frames are taken, which end as many ``steps``."""
        self.last = self.pixels[count - 1]
        self.pixels = self.pixels[count:]
        self._arrived(count)
        if self.features is not None:
            self.features = self.features[steps:]

    def _arrived(self, count: int) -> deque[tuple[int, float]]:
        """Take the arrivals of the first ``count`` frames out of those that wait."""
        taken: deque[tuple[int, float]] = deque()
        while count:
            together, since = self.arrivals.popleft()
            part = min(together, count)
            taken.append((part, since))
            if together > part:
                self.arrivals.appendleft((together - part, since))
            count -= part
        return taken


def half_of(frame: Tensor, frames_per_step: int) -> FrameRun:
    """A frame (height, width, 3) as a step of its own: repeated, as the last of a video is."""
    return FrameRun.of(torch.stack([frame] * frames_per_step), None, 0.0)


@dataclass
class Question:
    """A question that waits.

    Attributes:
        since: when it arrived.
        most: bound on its answer, in tokens; None for the session's own.
        ids: what it feeds; known once it is the next, and not before: it depends on what comes
            before it.
    """

    name: str
    text: str
    since: float
    most: int | None = None
    ids: list[int] | None = None


@dataclass
class Turn:
    """A narration or answer in progress.

    Attributes:
        said: token ids so far, the last of which is not yet fed.
        picked: per layer, the blocks that an answer looks back at; None where it does not.
        prompt: entries, as in a log, that are fed before its first word.
        aside: whether neither they nor its words become part of the stream.
        fed: entries of an aside that the cache holds beyond what is committed.
        most: bound on its tokens; None for the session's own.
    """

    frame: int | None
    question: str | None
    said: list[int]
    picked: list[list[int]] | None = None
    prompt: list[int] = field(default_factory=list)
    aside: bool = False
    fed: int = 0
    most: int | None = None

    @property
    def unfed(self) -> list[int]:
        """What goes through the model next."""
        if self.aside:
            return [*self.prompt, *self.said][self.fed :]
        return self.said[-1:] or self.prompt


@dataclass
class SessionState:
    """Everything about one session.

    Attributes:
        fps: frames a second.
        cache: None while the session is cold: its cache is in ``saved``, or only in its log.
        saved: the cache's content elsewhere, as ``PagedCache.save`` gives it.
        lengths: tokens per layer that are committed.
        places: how its frames lie along the axes of the model's positions.
        cursor: where the stream goes on after what is committed.
        lead: text that is part of the stream and not fed yet: it goes with the next input.
        ahead: entries of the next input's text that the cache holds beyond what is committed; it
            is committed as a whole.
        watching: whether frames have come since the stream opened or a question was asked.
        expected: how many frames were announced, as long as no question came.
        asked: whether a model that has to be asked in order to narrate is asked.
        unasked: frames since it last was.
        last_seen: the last frame that was seen; the next one is seen against it.
        half: a frame that was seen and waits for others to make a step, repeated as if there were
            none to come; None where none waits. A question that comes first takes it as it is.
        used: number of the step that last ran this session.
        policy: what it remembers; ``past`` is how its log divides by it.
        blocks: what left its window and can be looked back at, the oldest first.
        recall: what the answer in progress looks back at, while the cache is in place.
        kept: what the routers kept of its last frames; None where nobody asked for it.
    """

    name: str
    kind: Literal["live", "bulk"]
    fps: float
    threshold: float
    max_new_tokens: int
    cache: PagedCache | None
    lengths: list[int]
    places: Places
    lead: Parts
    log: StreamLog = field(default_factory=StreamLog)
    watching: bool = False
    expected: int | None = None
    asked: bool = True
    unasked: int = 0
    cursor: Cursor = field(default_factory=Cursor)
    ahead: int = 0
    n_frames: int = 0
    n_pushed: int = 0
    last_seen: Tensor | None = None
    last_pushed: Tensor | None = None
    half: FrameRun | None = None
    inbox: deque[FrameRun | Question] = field(default_factory=deque)
    turn: Turn | None = None
    speculation: Speculation = field(default_factory=Speculation)
    saved: list[Tensor] | None = None
    used: int = 0
    policy: Policy = field(default_factory=Full)
    past: Past = field(default_factory=lambda: Past(0))
    blocks: list[Block] = field(default_factory=list)
    recall: Recall | None = None
    kept: KeptTokens | None = None

    def drop_uncommitted(self) -> None:
        """Take out of the cache what is no part of the stream; it is fed anew if it goes on."""
        if not self.ahead and not (self.turn is not None and self.turn.fed):
            return
        assert self.cache is not None
        self.cache.truncate(self.lengths)
        self.ahead = 0
        if self.turn is not None:
            self.turn.fed = 0

    def forget_recall(self) -> None:
        """Nothing is looked back at any more."""
        if self.recall is not None:
            self.recall.release()
            self.recall = None

    @property
    def busy(self) -> bool:
        """Whether a step could do something for it."""
        return self.turn is not None or bool(self.inbox)
