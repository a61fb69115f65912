"""How few bytes and requests a reader makes of a demuxer's jumps.

Guards against a video that is fetched twice, or whole for the sake of one picture, and against
memory that grows with it.
"""

from __future__ import annotations

from actors.granules import GRANULE_BYTES, Granules
from actors.ranged import RangedReader

MIB = 1024 * 1024


class Counted:
    """A fetch that remembers what it was asked."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.asked: list[tuple[int, int]] = []

    def __call__(self, start: int, length: int) -> bytes:
        assert 0 < length <= self.size - start
        self.asked.append((start, length))
        return bytes(length)


def test_fetches_grow_along_a_run_and_start_small_after_a_jump() -> None:
    fetch = Counted(64 * MIB)
    reader = RangedReader(fetch.size, fetch)
    while reader.tell() < 20 * MIB:
        reader.read(32 * 1024)
    granules = [length // GRANULE_BYTES for _, length in fetch.asked]
    assert granules == [1, 4, 16, 64, 64, 64, 64, 64]
    reader.seek(50 * MIB)
    reader.read(1)
    assert fetch.asked[-1] == (50 * MIB, GRANULE_BYTES)
    assert reader.bytes_read == sum(length for _, length in fetch.asked)


def test_alternating_between_places_fetches_nothing_twice() -> None:
    fetch = Counted(64 * MIB)
    reader = RangedReader(fetch.size, fetch)
    for step in range(200):
        for start in (0, 30 * MIB, fetch.size - MIB):
            reader.seek(start + step * 4096)
            reader.read(4096)
    assert reader.bytes_read <= 3 * (1 + 4 + 16) * GRANULE_BYTES
    assert len(fetch.asked) == len(set(fetch.asked)) <= 9


def test_the_longest_fetch_is_bounded() -> None:
    fetch = Counted(64 * MIB)
    reader = RangedReader(fetch.size, fetch, buffer_bytes=MIB)
    assert len(reader.read()) == fetch.size
    assert max(length for _, length in fetch.asked) == MIB


def test_the_cache_is_bounded() -> None:
    granules = Granules(MIB)
    granules.put("a", 0, bytes(MIB))
    assert granules.get(("a", 0)) is not None  # so that it is not the one used longest ago
    granules.put("a", 100, bytes(MIB - 1))
    kept = [i for i in range(200) if ("a", i) in granules]
    assert kept == list(range(100, 116))
    granules.put("b", 0, bytes(1))
    assert granules.get(("b", 0)) == (bytes(1), 1)
    assert ("a", 100) not in granules
    assert ("a", 101) in granules


def test_what_is_needed_comes_at_once_and_no_more() -> None:
    """Guards against a segment that pays for what follows it."""
    fetch = Counted(64 * MIB)
    reader = RangedReader(fetch.size, fetch)
    reader.seek(10 * MIB)
    reader.read(32 * 1024)
    reader.need_until(19 * MIB - 1)
    while reader.tell() < 19 * MIB:
        reader.read(32 * 1024)
    rest = 9 * MIB - GRANULE_BYTES
    assert [length for _, length in fetch.asked] == [GRANULE_BYTES, 4 * MIB, 4 * MIB, rest % MIB]
    for _ in range(5):
        reader.read(GRANULE_BYTES)
    assert [length // GRANULE_BYTES for _, length in fetch.asked[4:]] == [1, 4]


def test_readers_of_one_version_fetch_its_bytes_once() -> None:
    """Guards against an index that every segment fetches anew, and bytes of another version."""
    granules = Granules(16 * MIB)
    old, new = Counted(8 * MIB), Counted(8 * MIB)
    for _ in range(3):
        RangedReader(old.size, old, granules=granules, version="old").read(MIB)
    assert sum(length for _, length in old.asked) == MIB
    RangedReader(new.size, new, granules=granules, version="new").read(MIB)
    assert sum(length for _, length in new.asked) == MIB
