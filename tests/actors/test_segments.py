"""Segment plans: a partition of the grid, on keyframes where there are some.

Guards against grid points in two segments or in none, and plans of what has no length.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import pairwise

import pytest

from actors.grid import grid_size
from actors.segments import Segment, plan_segments


@dataclass(frozen=True)
class Video:
    duration_s: float
    keyframes_s: tuple[float, ...] = ()


def check_partition(segments: list[Segment], video: Video, fps: float) -> None:
    n_grid = grid_size(video.duration_s, fps)
    indices = [k for s in segments for k in range(s.first_index, s.end_index)]
    assert indices == list(range(n_grid))
    assert all(s.end_index > s.first_index for s in segments)
    assert [s.index for s in segments] == list(range(len(segments)))
    if segments:
        assert segments[0].start_s == 0
        assert segments[-1].end_s == video.duration_s
    for before, after in pairwise(segments):
        assert before.end_s == after.start_s
        assert after.first_index / fps >= after.start_s - 1e-8


@pytest.mark.slow
def test_any_video_is_partitioned() -> None:
    """Guards against grid points lost, doubled or in empty segments, over odd random videos."""
    rng = random.Random(7)
    for _ in range(500):
        duration_s = rng.choice([0.04, 1.0, 9.7, 60.0, 601.3]) * rng.random() + 0.01
        gap = rng.choice([0.04, 0.5, 2.0, 10.0, 100.0])
        times = [0.0]
        while times[-1] < duration_s:
            times.append(times[-1] + gap * (0.2 + rng.random()))
        keyframes = tuple(times[:-1]) if rng.random() < 0.8 else ()
        video = Video(duration_s, keyframes)
        fps, segment_s = rng.choice([0.5, 2, 7.3, 30]), rng.choice([0.1, 1, 10, 60])
        segments = plan_segments(video, fps, segment_s)
        check_partition(segments, video, fps)
        longest = 2.5 * max(segment_s, 1 / fps) + 1 / fps
        assert all(s.end_s - s.start_s <= longest for s in segments)


def test_cuts_move_to_the_nearest_keyframe() -> None:
    """Guards against segments that begin inside a GOP and decode its start for nothing."""
    video = Video(60.0, (0.0, 3.0, 9.0, 12.5, 19.0, 31.0, 33.0, 41.0, 52.0))
    cuts = [s.start_s for s in plan_segments(video, 2, 10)]
    assert cuts == [0.0, 9.0, 19.0, 31.0, 41.0, 52.0]


def test_a_keyframe_on_a_grid_point_owns_that_point() -> None:
    """Guards against a rounded keyframe time that pushes its own point into the GOP before."""
    keyframes = tuple(i / 3 for i in range(90))
    for segment in plan_segments(Video(30.0, keyframes), 3, 5):
        assert segment.first_index == round(segment.start_s * 3)


def test_sparse_keyframes_lengthen_segments_only_so_far() -> None:
    """Guards against one endless segment for a video with a single keyframe."""
    sparse = plan_segments(Video(100.0, (0.0, 18.0, 36.0, 54.0, 72.0, 90.0)), 2, 10)
    assert [s.start_s for s in sparse] == [0.0, 18.0, 36.0, 54.0, 72.0, 90.0]
    single = plan_segments(Video(100.0, (0.0,)), 2, 10)
    assert [s.start_s for s in single] == [10.0 * i for i in range(10)]


def test_without_an_index_cuts_lie_on_the_grid() -> None:
    segments = plan_segments(Video(25.0), 0.4, 4)
    assert [(s.start_s, s.first_index) for s in segments] == [
        (0.0, 0), (5.0, 2), (10.0, 4), (15.0, 6), (20.0, 8)
    ]  # fmt: skip


def test_a_short_tail_joins_the_segment_before() -> None:
    """Guards against a last segment of a frame or two, or of none."""
    assert [s.end_s for s in plan_segments(Video(24.0), 2, 10)] == [10.0, 24.0]
    assert [s.end_s for s in plan_segments(Video(26.0), 2, 10)] == [10.0, 20.0, 26.0]


def test_a_video_without_length_has_no_segments() -> None:
    assert plan_segments(Video(0.0), 2, 10) == []


def test_impossible_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="segment_s"):
        plan_segments(Video(10.0), 2, 0)
