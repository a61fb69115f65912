"""Cutting one video into segments of the time grid, on keyframes where that is possible."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

from actors.grid import exact, exact_fps, first_index_at, grid_size

# A keyframe may pull a cut this far from where it was wanted, as shares of the segment length.
_SHORTEST = 0.5
_LONGEST = 2.0
# Keyframe times are rounded floats: one this close below a grid point counts as on it.
_SLACK_S = Fraction(1, 10**9)


class Probed(Protocol):
    """What a plan needs to know of a video (``actors.probe.VideoInfo`` has it)."""

    @property
    def duration_s(self) -> float: ...

    @property
    def keyframes_s(self) -> tuple[float, ...]: ...


@dataclass(frozen=True)
class Segment:
    """Grid indices ``[first_index, end_index)``, sampled between two times on the video's clock."""

    index: int
    start_s: float
    end_s: float
    first_index: int
    end_index: int


def plan_segments(info: Probed, fps: float, segment_s: float) -> list[Segment]:
    """Segments of about ``segment_s`` seconds that together hold each grid point exactly once.

    A cut moves to the keyframe nearest to where it is wanted, as long as the segment stays between
    half and twice ``segment_s``; without such a keyframe it stays where it is, and the decoder
    begins at the keyframe before it. No segment is empty; a tail under half a segment joins the
    one before.

    Raises:
        ValueError: ``fps`` or ``segment_s`` is not positive.
    """
    rate = exact_fps(fps)
    if not segment_s > 0:
        raise ValueError(f"segment_s is {segment_s}, which is no length")
    n_grid = grid_size(info.duration_s, fps)
    # Each segment holds at least one point, so none can be shorter than their distance.
    length = max(segment_s, float(1 / rate))
    keyframes = sorted(info.keyframes_s)

    cuts = [(0.0, 0)]
    while info.duration_s - cuts[-1][0] >= (1 + _SHORTEST) * length:
        start_s, first_index = cuts[-1]
        cut_s = _nearest_keyframe(keyframes, start_s, length)
        index = 0 if cut_s is None else first_index_at(Fraction(cut_s) - _SLACK_S, rate)
        if cut_s is None or index <= first_index:
            index = max(first_index + 1, first_index_at(exact(start_s + length), rate))
            cut_s = float(index / rate)
        if index >= n_grid or info.duration_s - cut_s < _SHORTEST * length:
            break
        cuts.append((cut_s, index))

    ends = [*cuts[1:], (info.duration_s, n_grid)]
    return [
        Segment(i, start_s, end_s, first_index, end_index)
        for i, ((start_s, first_index), (end_s, end_index)) in enumerate(
            zip(cuts, ends, strict=True)
        )
        if end_index > first_index
    ]


def _nearest_keyframe(keyframes: list[float], start_s: float, length: float) -> float | None:
    """The keyframe nearest to ``start_s + length`` that leaves a segment of acceptable length."""
    low = bisect_left(keyframes, start_s + _SHORTEST * length)
    high = bisect_right(keyframes, start_s + _LONGEST * length)
    candidates = keyframes[low:high]
    return min(candidates, key=lambda time: abs(time - (start_s + length)), default=None)
