"""Which pictures a damaged packet spoils: those predicted from it, and no others."""

from __future__ import annotations

from actors.damage import PacketLog

# Decoding order, as (pts, keyframe): two GOPs, the second open with leading pictures 40 and 50.
PACKETS = [
    (0, True), (30, False), (10, False), (20, False),
    (60, True), (40, False), (50, False), (90, False), (70, False), (80, False),
    (120, True), (100, False), (110, False),
]  # fmt: skip


def spoiled_by(*damaged: int, first: int = 0) -> list[int]:
    log = PacketLog()
    for pts, is_keyframe in PACKETS[first:]:
        log.add(pts, 1000 + pts, is_keyframe)
    log.mark([packet - first for packet in damaged])
    return list(log.spoiled().shown)


def test_an_undamaged_run_is_trusted() -> None:
    """Guards against pictures thrown away from a video that is whole."""
    assert spoiled_by() == []


def test_damage_lasts_until_the_next_keyframe() -> None:
    """Guards against garbage predicted from a damaged picture, and against losing the rest."""
    assert spoiled_by(7) == [70, 80, 90, 100, 110]


def test_leading_pictures_of_the_next_keyframe_are_spoiled_too() -> None:
    """Guards against open GOPs, whose first pictures need the GOP before."""
    assert spoiled_by(3) == [20, 40, 50]


def test_pictures_decoded_before_the_damage_are_trusted() -> None:
    """Guards against losing what is shown later but was decoded earlier."""
    assert 30 not in spoiled_by(2)


def test_leading_pictures_of_the_run_are_no_damage() -> None:
    """Guards against damage reported for any segment that begins at an open GOP."""
    assert spoiled_by(5, 6, first=4) == []


def test_a_damaged_keyframe_spoils_all_that_may_use_it() -> None:
    """Guards against grey pictures that are narrated as if they were seen."""
    assert spoiled_by(4) == [40, 50, 60, 70, 80, 90, 100, 110]


def test_what_is_on_screen() -> None:
    """Guards against a healthy frame held over the times of lost ones."""
    log = PacketLog()
    for pts, is_keyframe in PACKETS[:4]:
        log.add(pts, -1, is_keyframe)
    log.mark([3])
    spoiled = log.spoiled()
    assert not spoiled.hides(2, 10, 19)
    assert spoiled.hides(2, 10, 20)
    assert spoiled.hides(3, 20, 25)
    assert not spoiled.hides(1, 30, 35)
    assert spoiled.touches(20, 25)
    assert spoiled.touches(0, 20)
    assert not spoiled.touches(21, 40)
