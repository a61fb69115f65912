"""Where the tokens of a stream lie along the axes of a model's rotary positions.

Most models know one axis, along which all tokens follow each other. Some lay a frame out in time,
height and width; text then advances along all axes at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

#: Stands for a frame among the entries of a stream; others are tokens of text.
FRAME = -1


@dataclass(frozen=True)
class Cursor:
    """Where a stream goes on.

    Attributes:
        at: place of what comes next, unless that continues a stretch of frames.
        start: where the stretch of frames in progress lies.
        steps: frames of it so far; 0 after text.
    """

    at: int = 0
    start: int = 0
    steps: int = 0


@dataclass(frozen=True)
class Places:
    """How a model lays out frames.

    Attributes:
        offsets: (axes, tokens_per_frame) of a frame's tokens from the frame's own place.
        span: places from a frame to what follows it.
        interval: where frames that follow each other without text between them lie at one place
            but for the first axis, by how much the next lies ahead there; None where each lies
            behind the one before.
    """

    offsets: tuple[tuple[int, ...], ...]
    span: int
    interval: float | None = None

    @classmethod
    def line(cls, tokens_per_frame: int) -> Places:
        """All tokens follow each other along one axis."""
        return cls((tuple(range(tokens_per_frame)),), tokens_per_frame)

    @property
    def axes(self) -> int:
        """Along how many axes tokens lie."""
        return len(self.offsets)

    def entry(self, cursor: Cursor, entry: int) -> tuple[tuple[int, ...], Cursor]:
        """Where an entry lies along each axis, and where the stream goes on after it."""
        here = (cursor.at,) * self.axes
        if entry != FRAME:
            return here, Cursor(cursor.at + 1)
        if self.interval is None:
            return here, Cursor(cursor.at + self.span)
        if not cursor.steps:
            return here, Cursor(cursor.at + self.span, cursor.at, 1)
        # In single precision and cut off, as it is where these models come from.
        ahead = int(np.float32(cursor.steps) * np.float32(self.interval))
        lies = (cursor.start + ahead, *(cursor.start,) * (self.axes - 1))
        return lies, Cursor(cursor.at, cursor.start, cursor.steps + 1)

    def bases(self, entries: Iterable[int], cursor: Cursor) -> list[tuple[int, ...]]:
        """Where each of some entries lies, along each axis."""
        found = []
        for entry in entries:
            lies, cursor = self.entry(cursor, entry)
            found.append(lies)
        return found

    def after(self, cursor: Cursor, entries: Iterable[int]) -> Cursor:
        """Where the stream goes on after some entries."""
        for entry in entries:
            _, cursor = self.entry(cursor, entry)
        return cursor

    def tokens(self, entries: Iterable[int], cursor: Cursor) -> list[list[int]]:
        """Places of all tokens of some entries, along each axis."""
        if self._is_line:
            n = len(self.offsets[0])
            count = sum(n if entry == FRAME else 1 for entry in entries)
            return [list(range(cursor.at, cursor.at + count))]
        found: list[list[int]] = [[] for _ in self.offsets]
        for entry in entries:
            lies, cursor = self.entry(cursor, entry)
            for axis, base, offsets in zip(found, lies, self.offsets, strict=True):
                if entry == FRAME:
                    axis += [base + offset for offset in offsets]
                else:
                    axis.append(base)
        return found

    @cached_property
    def _is_line(self) -> bool:
        n = len(self.offsets[0])
        return self == Places.line(n)
