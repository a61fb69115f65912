"""When a model is asked: at a cadence, and where the picture changes, however it is pushed.

Guards against a model that is asked at every frame or never, or by how frames are cut.
"""

from __future__ import annotations

import pytest
import torch

from mod.asking import Asking, changes


def test_it_is_asked_at_the_latest_after_so_many_frames() -> None:
    asking = Asking("?", every_s=4)
    assert [asking.at(unasked, 0.0) for unasked in range(1, 5)] == [False, False, False, True]


def test_it_is_asked_where_the_picture_changes_but_not_too_often() -> None:
    asking = Asking("?", every_s=100, least_s=3, change=0.2)
    assert not asking.at(2, 0.9)
    assert asking.at(3, 0.2)
    assert not asking.at(3, 0.19)


def test_the_first_picture_is_all_new() -> None:
    frames = torch.zeros(2, 8, 8, 3, dtype=torch.uint8)
    assert changes(frames, None) == [1.0, 0.0]


def test_black_to_white_is_the_whole_range() -> None:
    frames = torch.stack([torch.zeros(8, 8, 3), torch.full((8, 8, 3), 255)]).to(torch.uint8)
    assert changes(frames, None)[1] == 1.0
    assert changes(frames.flip(0), None)[1] == 1.0


@pytest.mark.parametrize("size", [1, 2, 5])
def test_changes_are_the_same_to_the_last_bit_in_any_pieces(size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (10, 30, 30, 3), dtype=torch.uint8, generator=generator)
    found: list[float] = []
    last = None
    for start in range(0, len(frames), size):
        part = frames[start : start + size]
        found += changes(part, last)
        last = part[-1]
    assert found == changes(frames, None)


def test_no_frames_have_no_changes() -> None:
    assert changes(torch.zeros(0, 8, 8, 3, dtype=torch.uint8), None) == []


def test_frames_left_end_at_the_one_that_is_asked_at() -> None:
    asking = Asking("?", every_s=2.5)
    for fps in (0.5, 1.0, 2.0, 29.97):
        for unasked in range(100):
            left = asking.frames_left(unasked, fps)
            due = [asking.at((unasked + n) / fps, 0.0) for n in range(1, left + 1)]
            assert due[-1]
            assert not any(due[:-1])
            if due[0]:
                break
