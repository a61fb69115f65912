"""How few bytes and requests a reader makes of a demuxer's jumps."""

from __future__ import annotations

from actors.ranged import GRANULE_BYTES, RangedReader

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
    assert granules == [1, 4, 16, 16, 16, 16, 16]
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
    assert reader.bytes_read <= 3 * (5 * GRANULE_BYTES)
    assert len(fetch.asked) == len(set(fetch.asked)) <= 6


def test_the_cache_is_bounded() -> None:
    fetch = Counted(64 * MIB)
    reader = RangedReader(fetch.size, fetch, buffer_bytes=MIB)
    assert len(reader.read()) == fetch.size
    assert max(length for _, length in fetch.asked) == MIB
    assert sum(len(piece) for piece, _ in reader._cache.values()) <= 4 * MIB
