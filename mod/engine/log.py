"""What a session's stream consists of, enough to compute its cache again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mod.places import FRAME as FRAME


def beside(token: int, *, ahead: bool) -> int:
    """A token id as an entry of text beside a frame, which leaves a stream with it.

    Args:
        ahead: whether it stands before its frame; else it follows it.
    """
    return FRAME - 1 - (2 * token + (not ahead))


def token_of(entry: int) -> int:
    """The token id of an entry that is no frame."""
    return entry if entry > FRAME else (FRAME - 1 - entry) // 2


def begins_frame(entry: int, before: int | None) -> bool:
    """Whether a frame, with the text ahead of it, begins at an entry that follows ``before``."""
    if before is not None and _is_ahead(before):
        return False
    return entry == FRAME or _is_ahead(entry)


def _is_ahead(entry: int) -> bool:
    return entry < FRAME and (FRAME - 1 - entry) % 2 == 0


def is_said(entry: int) -> bool:
    """Whether an entry is text that was asked or said: no frame, nor what belongs to one."""
    return entry > FRAME


@dataclass
class StreamLog:
    """A stream as token ids with frames between them.

    Attributes:
        ids: token ids, ``FRAME`` where a frame's vision tokens lie, text ``beside`` one as such.
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
