"""What a model learns from: a stream of frames with the words that are due, and augmentation."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Turn:
    """A question that a user asks, and its answer.

    Attributes:
        after: frames seen before it is asked.
        question: None is the checkpoint's own request for a summary.
        answer: what is to be said.
        notes: text to read before the question.
    """

    after: int
    question: str | None
    answer: str
    notes: str = ""


@dataclass(frozen=True)
class Labels:
    """What the generated world knows of each frame, for the auxiliary losses.

    Attributes:
        cuts: (frames,) bool, a cut lies between the frame before and this one.
        moves: (frames,) int64, index into ``MOVES``; -1 is undefined.
        things: (frames, 3, 3) int64, what each cell shows, as ``mod.world.things.cells`` says.
    """

    cuts: NDArray[np.bool_]
    moves: NDArray[np.int64]
    things: NDArray[np.int64]


@dataclass(frozen=True)
class Dialogue:
    """One sequence to learn from.

    Attributes:
        frames: (frames, height, width, 3) uint8; may be empty.
        texts: per frame, the narration or None for silence.
        turns: questions with answers, in order of time.
        labels: for footage that is fully known, else None.
        doubtful: frames whose decision and narration are read and not learned.
    """

    frames: NDArray[np.uint8]
    texts: list[str | None]
    turns: tuple[Turn, ...] = ()
    labels: Labels | None = None
    doubtful: frozenset[int] = field(default_factory=frozenset)


def augment(dialogue: Dialogue, rng: np.random.Generator, share: float) -> Dialogue:
    """Spoil some narrations, so that the model learns to go on after a mistake of its own.

    A spoiled narration comes one or two frames late or early, or is another of the same
    dialogue; nothing is learned from it, nor from the frames between its place and the true one,
    nor from the frames next to those.

    Args:
        share: probability (0-1) with which each narration is spoiled.

    Source: VideoLLM-online, section 3.3, temporal augmentation.
    """
    texts = list(dialogue.texts)
    doubtful = set(dialogue.doubtful)
    spoken = [i for i, text in enumerate(texts) if text]
    for i in spoken:
        if rng.random() >= share:
            continue
        to = i
        if rng.random() < 0.5:
            to = i + int(rng.choice([-2, -1, 1, 2]))
            if not 0 <= to < len(texts) or texts[to] is not None:
                continue
            texts[to], texts[i] = texts[i], None
        else:
            texts[i] = dialogue.texts[int(rng.choice(spoken))]
        first, last = min(i, to), max(i, to)
        doubtful.update(range(max(0, first - 1), min(len(texts), last + 2)))
    return replace(dialogue, texts=texts, doubtful=frozenset(doubtful))


def asked(dialogue: Dialogue, frame: int, question: str) -> Dialogue:
    """A dialogue in which a model that never decides to speak is asked at ``frame``.

    It ends with the narration there, as an answer. Narrations before it are no part of it: what
    such a model is asked leaves no trace in its stream.
    """
    earlier = tuple(turn for turn in dialogue.turns if turn.after <= frame)
    answer = dialogue.texts[frame]
    assert answer is not None
    seen = frame + 1
    return Dialogue(dialogue.frames[:seen], [None] * seen, (*earlier, Turn(seen, question, answer)))


def narrated(dialogue: Dialogue) -> list[int]:
    """Frames with a narration that is not doubtful."""
    return [
        frame
        for frame, text in enumerate(dialogue.texts)
        if text is not None and frame not in dialogue.doubtful
    ]
