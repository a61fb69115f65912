"""When a model that cannot stay silent by itself is asked what happens."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

#: Every how many pixels pictures are compared, in both directions.
_STRIDE = 4


@dataclass(frozen=True)
class Asking:
    """Asks at a cadence, and where the picture changes much, as after a cut.

    Attributes:
        question: what is asked; neither it nor the answer stay in the stream.
        every_s: seconds of frames after which it is asked again at the latest.
        least_s: between two askings at least.
        change: mean difference of a picture to the one before (0-1) from which it is asked.
    """

    question: str
    every_s: float
    least_s: float = 1.0
    change: float = 0.1

    def at(self, unasked_s: float, change: float) -> bool:
        """Whether to ask at a frame.

        Args:
            unasked_s: how long the frames since the last asking last, this one among them.
            change: of this one, as ``changes`` gives it.
        """
        changed = unasked_s >= self.least_s and change >= self.change
        return changed or unasked_s >= self.every_s

    def frames_left(self, unasked: int, fps: float) -> int:
        """Frames up to the one at which it is asked at the latest, at least 1.

        Args:
            unasked: frames since the last asking.
        """
        return max(1, math.ceil(self.every_s * fps) - unasked)


def changes(frames: Tensor, last: Tensor | None) -> list[float]:
    """Mean absolute difference (0-1) of each picture to the one before it.

    Whole numbers are summed, so that it does not depend on what is compared together.

    Args:
        frames: (frames, height, width, 3) uint8.
        last: the picture before the first; None where there is none, whose change is 1.
    """
    if not len(frames):
        return []
    small = frames[:, ::_STRIDE, ::_STRIDE].to(torch.int32)
    before = small.roll(1, 0)
    if last is not None:
        before[0] = last[::_STRIDE, ::_STRIDE]
    sums = (small - before).abs().sum(dim=(1, 2, 3), dtype=torch.int64)
    found = [total / (255 * small[0].numel()) for total in sums.tolist()]
    if last is None:
        found[:1] = [1.0]
    return found
