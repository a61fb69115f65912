"""How far a job is, as one small record."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Progress:
    """How far a job is; totals come from the plan and do not move.

    Attributes:
        n_videos, n_segments, total_video_seconds: totals.
        videos, segments: rows by status.
        video_seconds: seconds of video whose segments have rows.
        frames: frames seen by the model.
        failures: the last few errors, each one line.
    """

    n_videos: int = 0
    n_segments: int = 0
    total_video_seconds: float = 0.0
    videos: Counter[str] = field(default_factory=Counter)
    segments: Counter[str] = field(default_factory=Counter)
    video_seconds: float = 0.0
    frames: int = 0
    failures: list[str] = field(default_factory=list)
