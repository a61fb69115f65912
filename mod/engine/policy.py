"""What a session lets go of so that an endless stream fits: plans over its log, without torch.

A log divides into ``sinks | words | closed blocks | open block``. A block is a stretch of
frames with the text between them; it closes before the frame or question that follows its last
one. When more blocks are closed than a policy keeps, the oldest leave.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from mod.engine.log import FRAME, begins_frame, is_said
from mod.layout import Layout


class PolicyError(ValueError):
    """A model cannot remember as a policy wants it to."""


@dataclass
class Past:
    """How a session's log divides, counted in its entries (a text token or a whole frame).

    Attributes:
        opening: entries of the text that opens the stream.
        sinks, words: entries of what is kept for ever, and of the text of blocks that left.
        blocks: entries of each closed block, the oldest first.
        entries, frames, text: of the open block; text counts what was asked and said, without
            silence and what closes a turn.
        left: whether anything ever left.
    """

    opening: int
    sinks: int = 0
    words: int = 0
    blocks: list[int] = field(default_factory=list)
    entries: int = 0
    frames: int = 0
    text: int = 0
    left: bool = False

    def copy(self) -> Past:
        """One that changes on its own."""
        return replace(self, blocks=list(self.blocks))


@dataclass(frozen=True)
class Departure:
    """What leaves a log.

    Attributes:
        past: how the log divides afterwards.
        keep: for each entry of the log whether it stays.
        blocks: ranges of entries that were the blocks that leave, their text included.
    """

    past: Past
    keep: list[bool]
    blocks: list[range]


class Policy(Protocol):
    """What a session remembers. Its answers depend on what was committed alone."""

    def note(
        self, past: Past, ids: Sequence[int], layout: Layout, lead: int, *, asked: bool
    ) -> None:
        """``ids`` were committed: ``past`` counts them.

        Args:
            lead: how many of them come first and close what was before; they fill no block,
                so that nothing can be due amid a step.
            asked: whether what follows those is a question.
        """

    def due(self, past: Past) -> bool:
        """Whether something must leave before the session goes on."""

    def frames_left(self, past: Past) -> int:
        """How many frames one chunk may take, at least 1: what is due leaves in between."""

    def depart(
        self, past: Past, ids: Sequence[int], layout: Layout, tokens_per_frame: int
    ) -> Departure:
        """What leaves of the log ``ids`` now that something is due."""


@dataclass(frozen=True)
class Full:
    """Forgets nothing; the cache grows with the stream."""

    def note(
        self, past: Past, ids: Sequence[int], layout: Layout, lead: int, *, asked: bool
    ) -> None:
        """Nothing is counted."""

    def due(self, past: Past) -> bool:
        """Never."""
        return False

    def frames_left(self, past: Past) -> int:
        """As many as there are."""
        return sys.maxsize

    def depart(
        self, past: Past, ids: Sequence[int], layout: Layout, tokens_per_frame: int
    ) -> Departure:
        """Nothing leaves."""
        return Departure(past, [True] * len(ids), [])


@dataclass(frozen=True)
class Window:
    """Forgets frames that are older than the window, for good, and all but the latest text.

    Kept are the first tokens of the stream (attention sinks: the opening text, and at least
    ``sinks`` tokens), the text of what has left as far as it is recent, and the last ``frames``
    to ``frames + block - 1`` frames with all text between them. Forgotten are the keys and values
    of older frames, their silence tokens, and older text. What is kept was computed when the rest
    was still there, and so still carries traces of it.

    Whole blocks leave, at borders that committed frames and text alone fix, so words do not depend
    on chunks. Positions stay contiguous: keys that move are rotated. A key moves at most once per
    block of the window and twice as text, so rounding does not add up; sinks never move.

    Args:
        frames: how many to keep at least; a multiple of ``block``.
        block: frames that leave at once.
        text: tokens of kept text; beyond it the older half goes, up to the end of a sentence of
            the dialogue. A block that has this much text ends early, so that a conversation
            without frames is bounded as well.
        sinks: tokens at the beginning of the stream that stay.

    Raises:
        ValueError: the numbers cannot work together.

    Source: StreamingVLM (arXiv 2510.09608), StreamingLLM (arXiv 2309.17453) for the sinks.
    """

    frames: int = 256
    block: int = 32
    text: int = 512
    sinks: int = 4

    def __post_init__(self) -> None:
        if self.block < 1 or self.frames < self.block or self.frames % self.block:
            raise ValueError(
                f"a window of {self.frames} frames is no multiple of blocks of {self.block}"
            )
        if self.text < 2 or self.sinks < 0:
            raise ValueError(f"text must be at least 2 and sinks 0, not {self.text}, {self.sinks}")

    def note(
        self, past: Past, ids: Sequence[int], layout: Layout, lead: int, *, asked: bool
    ) -> None:
        """Count ``ids``; a full block closes before the next frame or question."""
        before = None
        for number, token in enumerate(ids):
            begins = begins_frame(token, before) or (asked and number == lead)
            before = token
            if begins and self._full(past):
                past.blocks.append(past.entries)
                past.entries = past.frames = past.text = 0
            past.entries += 1
            past.frames += token == FRAME
            past.text += number >= lead and is_said(token)

    def due(self, past: Past) -> bool:
        """Whether the open block is full and the window holds all the blocks it may."""
        closed = len(past.blocks) + self._full(past)
        return closed > self.frames // self.block

    def frames_left(self, past: Past) -> int:
        """Frames up to the border at which a block leaves."""
        if self.due(past):
            return self.block
        missing = self.frames // self.block - len(past.blocks)
        return missing * self.block + (0 if self._full(past) else self.block - past.frames)

    def depart(
        self, past: Past, ids: Sequence[int], layout: Layout, tokens_per_frame: int
    ) -> Departure:
        """Close the open block; the oldest leave, their text joins what is kept of text."""
        after = past.copy()
        after.blocks.append(after.entries)
        after.entries = after.frames = after.text = 0
        if not after.left:
            after.sinks = min(
                after.blocks[0], _sinks(ids, max(self.sinks, past.opening), tokens_per_frame)
            )
            after.blocks[0] -= after.sinks
        keep = [True] * len(ids)
        words = list(range(after.sinks, after.sinks + after.words))
        leaving = []
        start = after.sinks + after.words
        while len(after.blocks) > self.frames // self.block:
            block = range(start, start + after.blocks.pop(0))
            start = block.stop
            leaving.append(block)
            for entry in block:
                if is_said(ids[entry]):
                    words.append(entry)
                else:
                    keep[entry] = False
        stay = _recent([ids[entry] for entry in words], self.text, layout.end)
        for entry in words[: len(words) - stay]:
            keep[entry] = False
        after.words, after.left = stay, True
        return Departure(after, keep, leaving)

    def _full(self, past: Past) -> bool:
        return past.frames >= self.block or past.text >= self.text


@dataclass(frozen=True)
class Retrieve(Window):
    """Forgets nothing for good, but looks back only when a question is asked.

    Between questions it is ``Window``: narrations are made without what has left. Blocks that
    leave go to host memory, or to files under ``folder``, whole. When a question is asked, each
    layer picks the blocks whose mean key agrees best with the question's queries, and question
    and answer attend to those as well. Of the other blocks a question sees nothing. The keys and
    values of question and answer stay in the stream and so carry traces of what was retrieved.

    Memory of the device is bounded as for ``Window``, and ``blocks`` blocks more while a question
    is answered; what is offloaded grows with the stream.

    Args:
        blocks: how many each layer looks back at.
        folder: where blocks lie on disk; in host memory when None.

    Source: ReKV (arXiv 2503.00540).
    """

    blocks: int = 8
    folder: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.blocks < 1:
            raise ValueError(f"blocks must be at least 1, not {self.blocks}")


#: Tokens of a context that are left for what opens a stream, a question and its answer.
_ROOM = 1024
#: Blocks that stay of a window that is made shorter, where it had as many.
_LEAST_BLOCKS = 3


def fitted(policy: Policy, context: int | None, frame_tokens: int) -> Policy:
    """The policy, with no more frames for a question to see than a model's context holds.

    Those are the window, its open block and the blocks that are looked back at; for what is said
    between them there is some room. Blocks become
    smaller, so that a few of them fit; where those of one frame are still too many, fewer are
    looked back at. Tokens count, and not places: models whose frames share a place have not
    learned from more of them.

    Args:
        context: tokens that the model was made for; None where it has learned to go on beyond.
        frame_tokens: of one frame, the text beside it included.
    """
    if context is None or not isinstance(policy, Window):
        return policy
    back = policy.blocks if isinstance(policy, Retrieve) else 0
    # A frame of each kind is seen however small the context is.
    most = max(3 if back else 2, (context - _ROOM - policy.text) // frame_tokens)
    block = policy.block
    if policy.frames + (1 + back) * block <= most:
        return policy
    while block > 1 and _least_window(policy, block) + (1 + back) * block > most:
        block //= 2
    back = min(back, max(1, (most - _least_window(policy, block)) // block - 1))
    frames = min(policy.frames, most - (1 + back) * block) // block * block
    shorter = replace(policy, frames=frames, block=block)
    return replace(shorter, blocks=back) if isinstance(shorter, Retrieve) else shorter


def _least_window(policy: Window, block: int) -> int:
    """Frames that stay of a window at least, in blocks of ``block``."""
    return min(policy.frames, _LEAST_BLOCKS * block)


def in_steps(policy: Policy, frames_per_step: int) -> Policy:
    """The policy in what a model sees as one, where it is given in frames."""
    if not isinstance(policy, Window):
        return policy
    block = max(1, policy.block // frames_per_step)
    frames = max(block, policy.frames // frames_per_step // block * block)
    return replace(policy, frames=frames, block=block)


#: Names of the policies, as snapshots and settings spell them.
POLICIES: dict[str, type[Full] | type[Window] | type[Retrieve]] = {
    "full": Full,
    "window": Window,
    "retrieve": Retrieve,
}


def policy_name(policy: Policy) -> str:
    """How snapshots and settings spell a policy's kind."""
    return next(name for name, kind in POLICIES.items() if kind is type(policy))


def _sinks(ids: Sequence[int], tokens: int, tokens_per_frame: int) -> int:
    """The first entries that hold at least ``tokens`` tokens."""
    count = entries = 0
    while count < tokens and entries < len(ids):
        count += tokens_per_frame if ids[entries] == FRAME else 1
        entries += 1
    return entries


def _recent(words: Sequence[int], bound: int, end: int) -> int:
    """How many of the last ``words`` stay: all, or at most half of ``bound``.

    Halving makes cuts rare, so that kept text seldom moves. It begins after an end mark where
    there is one.
    """
    if len(words) <= bound:
        return len(words)
    stay = bound // 2
    first = len(words) - stay
    for entry in range(first - 1, len(words) - 1):
        if words[entry] == end:
            return len(words) - entry - 1
    return stay
