"""Training batches of the generated world, the same for a step whoever asks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

import numpy as np
from torch.utils.data import IterableDataset, get_worker_info

from mod.batches import Batch, collate, scaled
from mod.config import RoutedConfig
from mod.dialogue import Dialogue, asked, augment, narrated
from mod.layout import Layout
from mod.places import Places
from mod.recipe import TrainRecipe
from mod.world.dialogues import look, read, watch
from mod.world.streams import SIZE

#: How often data is drawn again where none of it is spoken of.
_TRIES = 20


class Source(Protocol):
    """Where dialogues come from."""

    def dialogues(self, step: int, rng: np.random.Generator) -> list[Dialogue]:
        """What is learned at ``step``; all chance comes from ``rng``."""


class GeneratedWorld:
    """Dialogues of ``mod/world``, rendered when asked for.

    Args:
        size: side of the model's pictures, in pixels; what is rendered is scaled to it.
    """

    def __init__(self, recipe: TrainRecipe, size: int = SIZE) -> None:
        self._recipe, self._size = recipe, size

    def dialogues(self, step: int, rng: np.random.Generator) -> list[Dialogue]:
        """Short silent streams while the tower learns to see, then streams and summaries."""
        return [replace(d, frames=scaled(d.frames, self._size)) for d in self._rendered(step, rng)]

    def _rendered(self, step: int, rng: np.random.Generator) -> list[Dialogue]:
        data, training = self._recipe.data, self._recipe.training
        seeds = (int(s) for s in rng.integers(2**31, 2**62, 64))
        if step < training.see_steps:
            count = max(1, data.batch_frames // training.see_frames)
            return [look(next(seeds), training.see_frames) for _ in range(count)]
        kind = rng.random()
        if kind < data.read_share:
            return [read(next(seeds), int(rng.integers(1, 7))) for _ in range(24)]
        long = kind < data.read_share + 0.15
        frames = data.long_frames if long else int(rng.choice(data.frames))
        ask = bool(rng.random() < 0.6)
        count = max(1, data.batch_frames // frames)
        return [watch(next(seeds), frames, ask=ask) for _ in range(count)]


class Batches(IterableDataset[Batch]):
    """Batches of all steps from ``start`` on; rendering process ``w`` of ``n`` makes every n-th.

    Args:
        rank: of the training worker; each learns from batches of its own.
    """

    def __init__(
        self,
        recipe: TrainRecipe,
        source: Source,
        layout: Layout,
        config: RoutedConfig,
        places: Places | None = None,
        *,
        start: int = 0,
        rank: int = 0,
    ) -> None:
        self._recipe, self._source = recipe, source
        self._layout, self._config, self._places = layout, config, places
        self._start, self._rank = start, rank

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        number, of = (worker.id, worker.num_workers) if worker else (0, 1)
        for step in range(self._start + number, self._recipe.training.steps, of):
            yield self.batch(step)

    def batch(self, step: int) -> Batch:
        """The batch of one step."""
        seed = self._recipe.training.seed
        rng = np.random.default_rng([seed, step, *([self._rank] if self._rank else [])])
        dialogues = self._drawn(step, rng)
        if self._layout.asking is not None:
            question = self._layout.asking.question
            dialogues = [_asked_once(d, rng, question) for d in dialogues]
            # Nothing is learned from what nobody speaks of.
            for _ in range(_TRIES):
                if any(d.turns for d in dialogues):
                    break
                dialogues = [_asked_once(d, rng, question) for d in self._drawn(step, rng)]
            dialogues = [d for d in dialogues if d.turns] or dialogues
        return collate(dialogues, self._layout, self._config, self._places)

    def _drawn(self, step: int, rng: np.random.Generator) -> list[Dialogue]:
        dialogues = self._source.dialogues(step, rng)
        share = self._recipe.data.augment
        return [augment(d, rng, share) for d in dialogues] if share else dialogues


def _asked_once(dialogue: Dialogue, rng: np.random.Generator, question: str) -> Dialogue:
    """Up to one of its narrations, which is asked for; all of it where it has none."""
    frames = narrated(dialogue)
    if not frames:
        return replace(dialogue, texts=[None] * len(dialogue.texts))
    return asked(dialogue, int(rng.choice(frames)), question)
