"""Where in a file its numbers and its parts lie: sizes, counts, dimensions, times; boxes, chunks,
elements, packets. Read leniently: what cannot be followed ends the list.
"""

from __future__ import annotations

from dataclasses import dataclass, field

_BOXES_OF_BOXES = (
    b"moov", b"trak", b"mdia", b"minf", b"stbl", b"dinf", b"edts", b"moof", b"traf", b"mvex",
    b"udta",
)  # fmt: skip
# Header and Segment and, within it, what holds elements itself.
_MASTERS = {
    0x1A45DFA3, 0x18538067, 0x1549A966, 0x1654AE6B, 0xAE, 0xE0, 0x1F43B675, 0xA0, 0x1C53BB6B, 0xBB,
    0xB7, 0x114D9B74, 0x4DBB,
}  # fmt: skip
_MOST = 2000


@dataclass(frozen=True)
class Number:
    """A whole number of ``width`` bytes at ``at``; ``little`` is its byte order."""

    at: int
    width: int
    little: bool = False


@dataclass
class Structure:
    """Numbers, and [start, end) of parts."""

    numbers: list[Number] = field(default_factory=list)
    parts: list[tuple[int, int]] = field(default_factory=list)


def structure(data: bytes) -> Structure:
    """Of a file of any kind that is known; of others there is none."""
    found = Structure()
    if data[4:8] in (b"ftyp", b"moov", b"mdat", b"wide"):
        _boxes(data, 0, len(data), found)
    elif data.startswith(b"\x1a\x45\xdf\xa3"):
        _elements(data, 0, len(data), found)
    elif data.startswith(b"RIFF"):
        found.numbers.append(Number(4, 4, True))
        _chunks(data, 12, len(data), found)
    elif data.startswith(b"\x89PNG"):
        _png(data, found)
    elif data.startswith(b"\xff\xd8"):
        _jpeg(data, found)
    elif data.startswith(b"GIF8"):
        found.numbers += [Number(at, 2, True) for at in (6, 8)] + [Number(10, 1), Number(13, 1)]
        for at in range(len(data) - 10):
            if data[at] == 0x2C:
                found.numbers += [Number(at + n, 2, True) for n in (1, 3, 5, 7)]
    elif data.startswith(b"FLV"):
        _flv(data, found)
    elif data.startswith(b"OggS"):
        _ogg(data, found)
    elif data[:1] == b"\x47":
        _packets(data, found)
    elif data.startswith(b"\x00\x00\x01\xba"):
        for at in range(len(data) - 6):
            if data[at : at + 3] == b"\x00\x00\x01":
                found.numbers += [Number(at + 3, 1), Number(at + 4, 2), Number(at + 7, 4)]
                found.parts.append((at, min(len(data), at + 64)))
    return found


def _boxes(data: bytes, start: int, end: int, found: Structure) -> None:
    while start + 8 <= end and len(found.parts) < _MOST:
        size, kind = int.from_bytes(data[start : start + 4], "big"), data[start + 4 : start + 8]
        stop = min(end, start + size) if size >= 8 else end
        found.parts.append((start, stop))
        found.numbers.append(Number(start, 4))
        if kind in _BOXES_OF_BOXES:
            _boxes(data, start + 8, stop, found)
        elif kind == b"stsd":
            found.numbers.append(Number(start + 12, 4))
            _boxes(data, start + 16, stop, found)
            # Width and height of the first sample's description.
            found.numbers += [Number(start + 48, 2), Number(start + 50, 2)]
        elif kind != b"mdat":
            # Versions, counts, time scales, durations, offsets: full boxes hold words.
            words = range(start + 8, min(stop, start + 8 + 4 * 40) - 3, 4)
            found.numbers += [Number(at, 4) for at in words]
        start = stop


def _elements(data: bytes, start: int, end: int, found: Structure) -> None:
    while start < end and len(found.parts) < _MOST:
        id_width = _vint_width(data[start])
        at = start + id_width
        if not id_width or at >= end or not (width := _vint_width(data[at])):
            return
        kind = int.from_bytes(data[start:at], "big")
        size = int.from_bytes(data[at : at + width], "big") & ((1 << 7 * width) - 1)
        body = at + width
        stop = end if size == (1 << 7 * width) - 1 else min(end, body + size)
        found.parts.append((start, stop))
        found.numbers.append(Number(at, width))
        if kind in _MASTERS:
            _elements(data, body, stop, found)
        elif 0 < stop - body <= 8:
            found.numbers.append(Number(body, stop - body))
        start = stop


def _vint_width(first: int) -> int:
    return 9 - first.bit_length() if first else 0


def _chunks(data: bytes, start: int, end: int, found: Structure) -> None:
    while start + 8 <= end and len(found.parts) < _MOST:
        kind, size = data[start : start + 4], int.from_bytes(data[start + 4 : start + 8], "little")
        stop = min(end, start + 8 + size + size % 2)
        found.parts.append((start, stop))
        found.numbers.append(Number(start + 4, 4, True))
        if kind in (b"LIST", b"RIFF"):
            _chunks(data, start + 12, stop, found)
        elif kind not in (b"movi", b"JUNK"):
            words = range(start + 8, min(stop, start + 8 + 4 * 20) - 3, 4)
            found.numbers += [Number(at, 4, True) for at in words]
        start = stop


def _png(data: bytes, found: Structure) -> None:
    start = 8
    while start + 12 <= len(data) and len(found.parts) < _MOST:
        stop = min(len(data), start + 12 + int.from_bytes(data[start : start + 4], "big"))
        found.parts.append((start, stop))
        found.numbers.append(Number(start, 4))
        if data[start + 4 : start + 8] == b"IHDR":
            found.numbers += [Number(start + 8, 4), Number(start + 12, 4)]
            found.numbers += [Number(start + 16 + n, 1) for n in range(5)]
        start = stop


def _jpeg(data: bytes, found: Structure) -> None:
    start = 2
    while start + 4 <= len(data) and data[start] == 0xFF and len(found.parts) < _MOST:
        stop = min(len(data), start + 2 + int.from_bytes(data[start + 2 : start + 4], "big"))
        found.parts.append((start, stop))
        words = range(start + 2, min(stop, start + 42) - 1, 2)
        found.numbers += [Number(at, 2) for at in words]
        if data[start + 1] == 0xDA:
            return
        start = stop


def _flv(data: bytes, found: Structure) -> None:
    found.numbers.append(Number(5, 4))
    start = 13
    while start + 11 <= len(data) and len(found.parts) < _MOST:
        stop = min(len(data), start + 15 + int.from_bytes(data[start + 1 : start + 4], "big"))
        found.parts.append((start, stop))
        found.numbers += [Number(start, 1), Number(start + 1, 3), Number(start + 4, 3)]
        found.numbers += [Number(start + 7, 1), Number(start + 11, 1), Number(stop - 4, 4)]
        start = stop


def _ogg(data: bytes, found: Structure) -> None:
    start = 0
    while (start := data.find(b"OggS", start)) >= 0 and len(found.parts) < _MOST:
        stop = data.find(b"OggS", start + 4)
        found.parts.append((start, stop if stop > 0 else len(data)))
        found.numbers += [Number(start + 4, 1), Number(start + 5, 1), Number(start + 6, 8, True)]
        found.numbers += [Number(start + 14, 4, True), Number(start + 26, 1), Number(start + 27, 1)]
        start += 4


def _packets(data: bytes, found: Structure) -> None:
    for start in range(0, len(data) - 187, 188):
        found.parts.append((start, start + 188))
        # Program and flags, the adaptation field, and where tables and times begin.
        found.numbers += [Number(start + 1, 2), Number(start + 3, 1), Number(start + 4, 1)]
        found.numbers += [Number(start + at, 4) for at in (8, 13, 18, 22)]
