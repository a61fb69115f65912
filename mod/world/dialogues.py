"""Training sequences of the generated world: frames, narrations and a question at the end."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np

from mod.dialogue import Dialogue, Labels, Turn
from mod.world.questions import QUESTIONS
from mod.world.streams import World
from mod.world.summaries import digest
from mod.world.things import NAMES, cells
from mod.world.words import COLOURS, LEVELS, MOTIONS, MOVES


def watch(seed: int, n_frames: int, *, ask: bool = True) -> Dialogue:
    """A stream of ``n_frames`` sampled pictures; with ``ask`` it ends in questions.

    Two of those that ``questions.py`` can answer, or one of them and the request to summarize.
    """
    samples = list(islice(World(seed), n_frames))
    texts = [s.text for s in samples]
    turns: tuple[Turn, ...] = ()
    if ask:
        said = [t for t in texts if t]
        summary = Turn(n_frames, None, digest(said).sentence)
        known = [Turn(n_frames, question, rule(said)) for question, rule in QUESTIONS.items()]
        chosen = np.random.default_rng([6, seed]).permutation(1 + len(known))[:2]
        turns = tuple([summary, *known][i] for i in chosen)
    labels = Labels(
        cuts=np.array([s.cut for s in samples]),
        moves=np.array([-1 if s.move is None else MOVES.index(s.move) for s in samples]),
        things=np.stack([cells(s.things) for s in samples]),
    )
    return Dialogue(np.stack([s.frame for s in samples]), texts, turns, labels)


def look(seed: int, n_frames: int) -> Dialogue:
    """A stream with nothing to say: only the auxiliary labels teach."""
    seen = watch(seed, n_frames, ask=False)
    return replace(seen, texts=[None] * n_frames)


def read(seed: int, n_notes: int) -> Dialogue:
    """Summaries of ``n_notes`` consecutive parts, and the request to summarize them as one."""
    rng = np.random.default_rng([5, seed])
    notes = [_random_summary(rng) for _ in range(n_notes)]
    turn = Turn(0, None, digest(notes).sentence, notes=" ".join(notes))
    return Dialogue(np.zeros((0, 1, 1, 3), np.uint8), [], (turn,))


def corpus() -> list[str]:
    """Texts from which the tokenizer learns the words of this world."""
    rng = np.random.default_rng(0)
    texts = [*MOTIONS.values(), "The picture fades to black."]
    looks = [f"{level} {colour}".strip() for level in LEVELS for colour in COLOURS] + ["black"]
    for look in looks:
        article = "an" if look[0] in "aeiou" else "a"
        texts += [f"Cut to {article} {look} scene.", f"{article.title()} {look} scene."]
        texts += [f"The picture turns {look}."]
    for name in NAMES:
        texts += [f"A {name} appears.", f"The {name} leaves.", f"The {name} meets the {name}."]
    said = ["A red scene."]
    texts += [*QUESTIONS, *(answer(said) for answer in QUESTIONS.values())] * 4
    return texts * 4 + [_random_summary(rng) for _ in range(400)]


def _random_summary(rng: np.random.Generator) -> str:
    def look() -> str:
        if rng.random() < 0.08:
            return "black"
        return f"{rng.choice(LEVELS)} {rng.choice(COLOURS)}".strip()

    parts = [f"A {look()} scene.", *["Cut to a grey scene."] * int(rng.choice([0, 1, 3, 6]))]
    parts += [f"The picture turns {look()}."]
    if rng.random() < 0.5:
        parts.append(str(rng.choice(list(MOTIONS.values()))))
    return digest(parts).sentence
