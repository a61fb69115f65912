"""Healthy files damaged in their structure; the same number gives the same file."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from infra.hostile.structure import Structure, structure

_MOST_BYTES = 2**20


@dataclass(frozen=True)
class Hostile:
    """A file; ``name`` says what it was and what was done to it."""

    name: str
    data: bytes


def mutated(seeds: Mapping[str, bytes], count: int, seed: int = 0) -> Iterator[Hostile]:
    """``count`` files, of each of ``seeds`` in turn, each damaged in one to three ways."""
    known = {name: structure(data) for name, data in seeds.items()}
    names = sorted(seeds)
    for number in range(count):
        name = names[number % len(names)]
        rng = random.Random(f"{seed}-{number}")
        data, done = bytearray(seeds[name]), []
        shape = known[name]
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            way = rng.choice(list(_WAYS))
            data = _WAYS[way](data, shape, rng)[:_MOST_BYTES]
            done.append(way)
        if data.startswith(b"\x89PNG") and rng.random() < 0.8:
            data = _with_checksums(data)
        yield Hostile(f"{number:05d} {name}: {', '.join(done)}", bytes(data))


_Way = Callable[[bytearray, Structure, random.Random], bytearray]


def _truncate(data: bytearray, shape: Structure, rng: random.Random) -> bytearray:
    ends = [end for _, end in shape.parts] + [len(data)]
    return data[: max(0, rng.choice(ends) - rng.choice((0, 1, 4, 9, 100)))]


def _flip_bits(data: bytearray, shape: Structure, rng: random.Random) -> bytearray:
    for _ in range(rng.choice((1, 8, 64)) if data else 0):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def _flip_header_bits(data: bytearray, shape: Structure, rng: random.Random) -> bytearray:
    for _ in range(rng.choice((1, 4)) if data else 0):
        data[rng.randrange(min(len(data), 600))] ^= 1 << rng.randrange(8)
    return data


def _set_numbers(data: bytearray, shape: Structure, rng: random.Random) -> bytearray:
    """Zero, one, huge, negative, or a little beside what it was."""
    for _ in range(rng.choice((1, 1, 2, 8))):
        if not shape.numbers:
            return data
        number = rng.choice(shape.numbers)
        end = number.at + number.width
        if end > len(data):
            continue
        order = "little" if number.little else "big"
        most = (1 << 8 * number.width) - 1
        was = int.from_bytes(data[number.at : end], order)  # type: ignore[arg-type]
        value = rng.choice(
            (
                0,
                1,
                7,
                8,
                most,
                most // 2,
                most // 2 + 1,
                was - 1,
                was + 1,
                was * 2,
                rng.getrandbits(64),
            )
        )
        data[number.at : end] = (value & most).to_bytes(number.width, order)  # type: ignore[arg-type]
    return data


def _part(data: bytearray, shape: Structure, rng: random.Random) -> tuple[int, int]:
    parts = [(start, end) for start, end in shape.parts if end <= len(data)]
    return rng.choice(parts) if parts else (0, len(data))


def _duplicate(data: bytearray, shape: Structure, rng: random.Random) -> bytearray:
    start, end = _part(data, shape, rng)
    return data[:end] + data[start:end] * rng.choice((1, 2, 50)) + data[end:]


def _remove(data: bytearray, shape: Structure, rng: random.Random) -> bytearray:
    start, end = _part(data, shape, rng)
    return data[:start] + data[end:]


def _swap(data: bytearray, shape: Structure, rng: random.Random) -> bytearray:
    one, two = sorted((_part(data, shape, rng), _part(data, shape, rng)))
    if one[1] > two[0]:
        return data
    return (
        data[: one[0]]
        + data[two[0] : two[1]]
        + data[one[1] : two[0]]
        + data[one[0] : one[1]]
        + data[two[1] :]
    )


def _nest(data: bytearray, shape: Structure, rng: random.Random) -> bytearray:
    """A part within another one, whose size then is too small."""
    start, end = _part(data, shape, rng)
    into, _ = _part(data, shape, rng)
    return data[: into + 8] + data[start:end] + data[into + 8 :]


def _zero(data: bytearray, shape: Structure, rng: random.Random) -> bytearray:
    start, end = _part(data, shape, rng)
    start = rng.randint(start, end)
    data[start:end] = bytes(end - start)
    return data


def _noise(data: bytearray, shape: Structure, rng: random.Random) -> bytearray:
    start, end = _part(data, shape, rng)
    start = rng.randint(start, end)
    data[start:end] = rng.randbytes(end - start)
    return data


_WAYS: dict[str, _Way] = {
    "truncated": _truncate,
    "bits flipped": _flip_bits,
    "header bits flipped": _flip_header_bits,
    "numbers set": _set_numbers,
    "more numbers set": _set_numbers,
    "part duplicated": _duplicate,
    "part removed": _remove,
    "parts swapped": _swap,
    "part nested": _nest,
    "part zeroed": _zero,
    "part of noise": _noise,
}


def _with_checksums(data: bytearray) -> bytearray:
    """A PNG whose chunks have the checksums of what they hold: or no decoder would look further."""
    start = 8
    while start + 12 <= len(data):
        size = int.from_bytes(data[start : start + 4], "big")
        end = start + 8 + size
        if end + 4 > len(data):
            break
        data[end : end + 4] = zlib.crc32(data[start + 4 : end]).to_bytes(4, "big")
        start = end + 4
    return data
