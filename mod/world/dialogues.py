"""Training sequences of the generated world: frames, narrations and a question at the end."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from mod.world.streams import World
from mod.world.summaries import digest
from mod.world.words import COLOURS, LEVELS, MOVES, MOVING, STILL


@dataclass(frozen=True)
class Dialogue:
    """One sequence to learn from.

    Attributes:
        frames: (frames, height, width, 3) uint8; may be empty.
        texts: per frame, the narration or None for silence.
        notes: text to read before the question, for sequences without frames.
        answer: the answer to the summary request that ends the sequence, or None.
        cuts, moves: per frame, labels for the auxiliary losses; a move of -1 is undefined.
    """

    frames: NDArray[np.uint8]
    texts: list[str | None]
    notes: str
    answer: str | None
    cuts: NDArray[np.bool_]
    moves: NDArray[np.int64]


def watch(seed: int, n_frames: int, *, ask: bool = True) -> Dialogue:
    """A stream of ``n_frames`` sampled pictures; with ``ask`` it ends in a request to summarize."""
    samples = list(islice(World(seed), n_frames))
    texts = [s.text for s in samples]
    return Dialogue(
        frames=np.stack([s.frame for s in samples]),
        texts=texts,
        notes="",
        answer=digest([t for t in texts if t]).sentence if ask else None,
        cuts=np.array([s.cut for s in samples]),
        moves=np.array([-1 if s.move is None else MOVES.index(s.move) for s in samples]),
    )


def look(seed: int, n_frames: int) -> Dialogue:
    """A stream with nothing to say: only the auxiliary labels teach."""
    seen = watch(seed, n_frames, ask=False)
    return replace(seen, texts=[None] * n_frames)


def read(seed: int, n_notes: int) -> Dialogue:
    """Summaries of ``n_notes`` consecutive parts, and the request to summarize them as one."""
    rng = np.random.default_rng([5, seed])
    notes = [_random_summary(rng) for _ in range(n_notes)]
    empty = np.zeros((0, 1, 1, 3), np.uint8)
    nothing = np.zeros(0, np.int64)
    answer = digest(notes).sentence
    return Dialogue(empty, [], " ".join(notes), answer, nothing.astype(bool), nothing)


def corpus() -> list[str]:
    """Texts from which the tokenizer learns the words of this world."""
    rng = np.random.default_rng(0)
    texts = [STILL, MOVING, "The picture fades to black."]
    looks = [f"{level} {colour}".strip() for level in LEVELS for colour in COLOURS] + ["black"]
    for look in looks:
        article = "an" if look[0] in "aeiou" else "a"
        texts += [f"Cut to {article} {look} scene.", f"{article.title()} {look} scene."]
        texts += [f"The picture turns {look}."]
    return texts * 4 + [_random_summary(rng) for _ in range(400)]


def _random_summary(rng: np.random.Generator) -> str:
    def look() -> str:
        if rng.random() < 0.08:
            return "black"
        return f"{rng.choice(LEVELS)} {rng.choice(COLOURS)}".strip()

    parts = [f"A {look()} scene.", *["Cut to a grey scene."] * int(rng.choice([0, 1, 3, 6]))]
    parts += [f"The picture turns {look()}."]
    if rng.random() < 0.5:
        parts.append(MOVING)
    return digest(parts).sentence
