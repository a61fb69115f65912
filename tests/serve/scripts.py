"""What clients of live sessions send: frames and questions, fixed by a seed."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mod.world.streams import World

#: Seconds of video between two frames: the model's own pace.
SPACING_S = 0.5
QUESTIONS = ("What is happening?", "Summarize the video so far.", "What colour is it?")


@dataclass(frozen=True)
class Push:
    """Frames to send as one request; ``seq`` is the first one's number."""

    seq: int
    pictures: tuple[bytes, ...]
    times: tuple[float, ...]
    wait: bool = True


@dataclass(frozen=True)
class Ask:
    """A question to send."""

    seq: int
    text: str
    stream: bool = True


Step = Push | Ask


def png(picture: NDArray[np.uint8]) -> bytes:
    """The (height, width, 3) RGB picture, encoded without loss."""
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "PNG")
    return data.getvalue()


@lru_cache(maxsize=64)
def film(seed: int, frames: int) -> tuple[bytes, ...]:
    """The first ``frames`` pictures of a world, as PNG."""
    return tuple(png(sample.frame) for sample in islice(World(seed), frames))


def script(seed: int, frames: int, asks: int = 2) -> list[Step]:
    """What one session's client does, fixed by ``seed``; the last step waits for all before it.

    Some requests carry several frames; some do not wait for what the model makes of them.
    """
    rng = np.random.default_rng(seed)
    pictures = film(seed, frames)
    before = {round((n + 1) * frames / (asks + 1)) for n in range(asks)}
    steps: list[Step] = []
    seq, at = 1, 0
    while at < frames:
        if before and at >= min(before):
            before.discard(min(before))
            text = QUESTIONS[int(rng.integers(len(QUESTIONS)))]
            steps.append(Ask(seq, text, stream=bool(rng.random() < 0.7)))
            seq += 1
        n = min(int(rng.choice([1, 1, 1, 2, 3])), frames - at)
        times = tuple((at + i) * SPACING_S for i in range(n))
        wait = at + n == frames or bool(rng.random() < 0.6)
        steps.append(Push(seq, pictures[at : at + n], times, wait))
        seq, at = seq + n, at + n
    return steps
