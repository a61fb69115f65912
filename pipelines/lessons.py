"""What a training run learns from, and what it is measured on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from mod.batches import scaled
from mod.config import RoutedConfig
from mod.dialogue import Dialogue
from mod.recipe import TrainRecipe
from mod.sequences import GeneratedWorld, Source
from mod.world.dialogues import watch
from pipelines.footage import Footage, read_footage, read_narrations, split

#: Length and first seed of the generated dialogues on which teacher-forced metrics are taken.
_WORLD_FRAMES, _WORLD_SEED = 24, 5_000


def lessons(
    recipe: TrainRecipe, config: RoutedConfig, warn: Callable[[str], None]
) -> tuple[Source, Iterable[Dialogue]]:
    """Where batches come from, and dialogues to measure on that are no part of them.

    Args:
        config: of the model that learns.
        warn: told of each video that cannot be used.
    """
    data = recipe.data
    fps, size = float(config.fps), int(config.image_size)
    if not data.narrations:
        seeds = range(_WORLD_SEED, _WORLD_SEED + recipe.training.evaluate_streams)

        def shown() -> Iterator[Dialogue]:
            for seed in seeds:
                seen = watch(seed, _WORLD_FRAMES)
                yield replace(seen, frames=scaled(seen.frames, size))

        return GeneratedWorld(recipe, size), _Again(shown)
    spoken_of = read_narrations(data.narrations)
    clips = read_footage(spoken_of, fps, warn)
    learned, measured = split(clips, spoken_of, data.held_out)

    def footage(chosen: Any) -> Footage:
        return Footage(
            chosen, fps=fps, size=size, lengths=data.frames, batch_frames=data.batch_frames
        )

    longest = max(data.frames)

    def stretches() -> Iterator[Dialogue]:
        for clip in measured:
            for at in range(0, clip.frames, longest):
                found = footage([clip]).stretch(clip, at, min(clip.frames, at + longest))
                if len(found.frames):
                    yield found

    return footage(learned), _Again(stretches)


class _Again:
    """Dialogues that are made anew each time they are gone through: all at once are too large."""

    def __init__(self, make: Callable[[], Iterator[Dialogue]]) -> None:
        self._make = make

    def __iter__(self) -> Iterator[Dialogue]:
        return self._make()
