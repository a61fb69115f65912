"""Index arithmetic of a step over pages, for one class of layers: plain numbers, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Tables:
    """Where a step's tokens go, and which pages each sequence reads.

    Attributes:
        slots: for each new token, in order of the sequences, its place in the pool.
        starts: (sequences + 1) where each sequence's new tokens start; the last is their number.
        used: (sequences) tokens of each sequence, new ones included.
        pages: (sequences, width) the pages of each, filled up with page 0, which is never read
            beyond ``used``.
    """

    slots: list[int]
    starts: list[int]
    used: list[int]
    pages: list[list[int]]

    @property
    def longest_new(self) -> int:
        """Most new tokens of a sequence."""
        return max((b - a for a, b in zip(self.starts, self.starts[1:], strict=False)), default=0)


def tables(
    pages: Sequence[Sequence[int]], before: Sequence[int], new: Sequence[int], page_size: int
) -> Tables:
    """The tables of sequences that hold ``before`` tokens and get ``new`` ones.

    Args:
        pages: of each sequence, enough for all of its tokens.

    Raises:
        ValueError: a sequence's pages do not hold its tokens.
    """
    slots: list[int] = []
    starts, used = [0], []
    for own, held, count in zip(pages, before, new, strict=True):
        end = held + count
        if end > len(own) * page_size:
            raise ValueError(f"{len(own)} pages of {page_size} do not hold {end} tokens")
        slots += [own[i // page_size] * page_size + i % page_size for i in range(held, end)]
        starts.append(starts[-1] + count)
        used.append(end)
    width = max((-(-end // page_size) for end in used), default=0)
    return Tables(slots, starts, used, [_filled(own, max(1, width)) for own in pages])


def bucket(n: int) -> int:
    """The next power of two: sizes that repeat."""
    return 1 << max(0, n - 1).bit_length()


def decode_bucket(step: Tables) -> Tables:
    """A step of one token a sequence, filled up to sizes that repeat.

    Its last sequence stands for those that are missing: they write the same to the same place.

    Raises:
        ValueError: some sequence has other than one new token.
    """
    n = len(step.used)
    if step.starts != list(range(n + 1)) or not n:
        raise ValueError("no step of one token a sequence")
    missing = bucket(n) - n
    width = bucket(len(step.pages[0]))
    rows = [_filled(row, width) for row in step.pages]
    return Tables(
        step.slots + step.slots[-1:] * missing,
        list(range(n + missing + 1)),
        step.used + step.used[-1:] * missing,
        rows + rows[-1:] * missing,
    )


def _filled(row: Sequence[int], width: int) -> list[int]:
    return [*row[:width], *[0] * (width - len(row))]
