"""In how many layers each vision token of a session's last frames ran: a view for people.

It is no part of a session: snapshots leave it out, and a session that asks for none pays nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mod.config import RoutedConfig
from mod.routing import Routing


@dataclass(frozen=True)
class KeptFrame:
    """What the router let pass of one frame.

    Attributes:
        rows, columns: of the frame's tokens, as they lie in the picture.
        layers: that route; all others run every token.
        counts: of each token, row by row, in how many of ``layers`` it ran.
    """

    rows: int
    columns: int
    layers: int
    counts: list[int]


@dataclass
class KeptTokens:
    """Of a session's last frames, in how many layers their tokens ran.

    Attributes:
        most: frames that are remembered.
        fed: of the frames, or steps of several, that a step of the engine feeds: (steps, tokens)
            uint8 on the model's device; None where it feeds none.
    """

    most: int
    fed: Tensor | None = None
    _frames: dict[int, Tensor] = field(default_factory=dict)

    def note(self, first: int, steps: int, frames_per_step: int) -> None:
        """The first ``steps`` that were fed are part of the stream; ``first`` is their frame."""
        if self.fed is None or not steps:
            return
        for step, counts in enumerate(self.fed[:steps].cpu()):
            for frame in range(frames_per_step):
                number = first + step * frames_per_step + frame
                self._frames.pop(number, None)
                self._frames[number] = counts
        while len(self._frames) > self.most:
            del self._frames[next(iter(self._frames))]

    def of(self, frame: int, config: RoutedConfig) -> KeptFrame | None:
        """The frame with this number, as long as it is remembered."""
        counts = self._frames.get(frame)
        if counts is None:
            return None
        first, rows, columns = config.token_grid
        layers = 0 if config.router == "none" else len(config.mod_layers)
        return KeptFrame(rows, columns, layers, counts[first : first + rows * columns].tolist())


def hand_out(fed: Sequence[tuple[KeptTokens | None, int]], routings: Mapping[int, Routing]) -> None:
    """Give each session that asked for it what a step's routers kept of its frames.

    Args:
        fed: of each session of the step, who asked, and how many frames it has in it.
        routings: by layer, over the frames of all of them.
    """
    counts: Tensor | None = None
    if routings:
        kept = [routing.kept for routing in routings.values()]
        counts = torch.stack([each.to(kept[0].device) for each in kept]).sum(0, dtype=torch.uint8)
    start = 0
    for tokens, frames in fed:
        end = start + frames
        if tokens is not None:
            tokens.fed = counts[start:end] if counts is not None else None
        start = end
