"""How many frames run as if the model stayed silent after each: fewer where it spoke of late."""

from __future__ import annotations

import math
from dataclasses import dataclass

#: Steps of frames in one chunk. A GPU is busy with large ones alone; on a CPU they gain nothing,
#: and a live session waits for the whole step.
MIN_CHUNK, MAX_CHUNK, MAX_CHUNK_ON_GPU = 2, 32, 256
#: What a chunk costs beside its frames, however many they are; in frames of a long chunk.
_BESIDE, _BESIDE_ON_GPU = 2.0, 16.0
#: Weight of the latest stretch between two narrations in their running mean.
_LATEST = 0.5


@dataclass(frozen=True)
class Chunks:
    """What chunks are like where an engine runs.

    Attributes:
        most: steps of the largest.
        beside: what each costs beside its steps, in steps.
    """

    most: int
    beside: float

    @classmethod
    def on(cls, *, gpu: bool, most: int | None = None) -> Chunks:
        """Those of a device; ``most`` bounds them otherwise.

        Raises:
            ValueError: ``most`` is below 1.
        """
        if most is None:
            most = MAX_CHUNK_ON_GPU if gpu else MAX_CHUNK
        if most < 1:
            raise ValueError(f"max_chunk must be at least 1, not {most}")
        return cls(most, _BESIDE_ON_GPU if gpu else _BESIDE)

    @property
    def calm(self) -> float:
        """Steps between narrations for which the largest chunk is ``best``."""
        return self.most**2 / (2 * self.beside)

    def best(self, between: float) -> int:
        """Steps of the chunk that costs least where the model speaks every ``between`` steps.

        With n of them a step costs 1 + ``beside`` / n, and at each narration half a chunk on the
        average has run in vain: n / 2 ``between`` more. The sum is least where both are equal.
        """
        return min(self.most, max(MIN_CHUNK, round(math.sqrt(2 * self.beside * between))))


@dataclass
class Speculation:
    """Of one session: the chunk that it runs next, doubled as long as the model stays silent, up
    to what is best where it goes on speaking as often as it did.

    Attributes:
        chunk: steps of frames.
    """

    chunk: int = MIN_CHUNK
    _silent: int = 0
    _between: float | None = None

    def silent(self, steps: int, chunks: Chunks) -> None:
        """The model stayed silent after each of ``steps``."""
        self._silent += steps
        self.chunk = min(2 * self.chunk, self._best(chunks))

    def spoke(self, steps: int, chunks: Chunks) -> None:
        """It spoke after the last of ``steps``."""
        # Of a night without a word no more counts than makes the largest chunk the best.
        before, latest = self._usual(chunks), min(self._silent + steps, chunks.calm)
        self._between, self._silent = before + _LATEST * (latest - before), 0
        self.chunk = min(self.chunk, self._best(chunks))

    def _usual(self, chunks: Chunks) -> float:
        return chunks.calm if self._between is None else self._between

    def _best(self, chunks: Chunks) -> int:
        return chunks.best(max(self._usual(chunks), self._silent))
