"""Which sampled frames stand for a segment or a video."""

from __future__ import annotations

from collections.abc import Sequence

#: At most this many keyframes a segment, and a video.
PER_SEGMENT, PER_VIDEO = 6, 24


def choose(
    times_s: Sequence[float], scores: Sequence[float], limit: int, min_gap_s: float = 1.0
) -> list[int]:
    """Indices, in order of time, of the best-scored frames that do not crowd each other.

    Args:
        times_s: seconds, increasing.
        scores: higher is better; ties go to the earlier frame.
        limit: at most this many.
        min_gap_s: least distance in seconds between two chosen frames.
    """
    chosen: list[int] = []
    for i in sorted(range(len(times_s)), key=lambda i: (-scores[i], i)):
        if len(chosen) == limit:
            break
        if all(abs(times_s[i] - times_s[j]) >= min_gap_s for j in chosen):
            chosen.append(i)
    return sorted(chosen)
