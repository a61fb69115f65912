"""What a session's stream consists of, enough to compute its cache again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

#: Stands for a frame among token ids.
FRAME = -1


@dataclass
class StreamLog:
    """A stream as token ids with frames between them.

    Attributes:
        ids: token ids, ``FRAME`` where a frame's vision tokens lie.
        features: of each frame in order, (tokens_per_frame, D).
        last: features of the frame that was fed last, whether or not it has left the log since.
    """

    ids: list[int] = field(default_factory=list)
    features: list[Tensor] = field(default_factory=list)
    last: Tensor | None = None

    def add_text(self, ids: Sequence[int]) -> None:
        """Text was fed."""
        self.ids.extend(ids)

    def add_frame(self, features: Tensor) -> None:
        """A frame was fed."""
        self.ids.append(FRAME)
        self.features.append(features)
        self.last = features

    def copy(self) -> StreamLog:
        """A log that grows on its own; features are shared."""
        return StreamLog(list(self.ids), list(self.features), self.last)

    def pieces(self, tokens: int) -> Iterator[tuple[list[int], Tensor | None]]:
        """The stream in pieces of about ``tokens`` tokens: ids, and the features of their frames.

        A frame is never divided; a piece without frames has None.
        """
        ids: list[int] = []
        count = frames = first = 0
        for token in self.ids:
            ids.append(token)
            is_frame = token == FRAME
            frames += is_frame
            count += len(self.features[0]) if is_frame else 1
            if count >= tokens:
                yield ids, self._stacked(first, first + frames)
                first += frames
                ids, count, frames = [], 0, 0
        if ids:
            yield ids, self._stacked(first, first + frames)

    def _stacked(self, first: int, end: int) -> Tensor | None:
        return torch.stack(self.features[first:end]) if end > first else None
