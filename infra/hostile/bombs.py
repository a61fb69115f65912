"""Small files that promise, or unpack to, far more than a service can hold."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import av
import numpy as np
from PIL import Image

from infra.hostile.mutations import Hostile

_CHANNELS = {0: 1, 2: 3, 6: 4}


def chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    width: int, height: int, colour: int = 2, body: bytes | None = None, extra: bytes = b""
) -> bytes:
    """A black PNG of 8 bits a channel; ``colour`` 0 is grey, 2 RGB, 6 RGBA.

    Args:
        body: compressed rows; those of the whole picture without.
        extra: chunks before them.
    """
    if body is None:
        body = _packed(bytes(1 + width * _CHANNELS[colour]), height)
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", header), extra, chunk(b"IDAT", body), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def bombs() -> Iterator[Hostile]:
    """Of every format, the ways in which little becomes much."""
    zeros = _packed(bytes(2**20), 300)
    yield Hostile("png of 1 gigapixel", png(32_768, 32_768, body=b""))
    yield Hostile("png of 49 megapixels that is there", png(7000, 7000, 6))
    yield Hostile("png with 300 MB behind a small picture", png(8, 8, body=zeros))
    yield Hostile("png with 300 MB of text", png(8, 8, extra=chunk(b"zTXt", b"k\0\0" + zeros)))
    yield Hostile(
        "png with 300 MB of international text",
        png(8, 8, extra=chunk(b"iTXt", b"k\0\1\0\0\0" + zeros)),
    )
    yield Hostile(
        "png with a colour profile of 300 MB", png(8, 8, extra=chunk(b"iCCP", b"k\0\0" + zeros))
    )
    yield Hostile("png of 300000 chunks", png(8, 8, extra=chunk(b"tEXt", b"k\0v") * 300_000))
    yield Hostile("png with 8 MB of EXIF", png(8, 8, extra=chunk(b"eXIf", _exif(700_000))))
    yield Hostile(
        "png whose EXIF names itself", png(8, 8, extra=chunk(b"eXIf", _exif(1, loop=True)))
    )
    jpeg = _jpeg()
    yield Hostile("jpeg of 65500 x 65500", _with_size(jpeg, 65_500, 65_500))
    yield Hostile("jpeg of 0 x 0", _with_size(jpeg, 0, 0))
    yield Hostile("jpeg of a thousand scans", _with_scans(_jpeg(progressive=True), 1000))
    app = b"Exif\0\0" + _exif(5400)
    yield Hostile(
        "jpeg with 20 MB of EXIF",
        jpeg[:2] + (b"\xff\xe1" + struct.pack(">H", len(app) + 2) + app) * 300 + jpeg[2:],
    )
    yield Hostile("gif of 65535 x 65535", b"GIF89a" + b"\xff\xff\xff\xff\x80\0\0" + bytes(6) + b";")
    frame = b"\x2c" + bytes(4) + b"\x01\0\x01\0\0\x02\x02\x44\x01\0"
    screen = b"GIF89a\x01\0\x01\0\x80\0\0" + bytes(6)
    yield Hostile("gif of 300000 pictures", screen + frame * 300_000 + b";")
    yield Hostile("gif that never ends a block", screen + frame[:-2] + b"\xff" * 2**20)
    yield Hostile(
        "webp of 16384 x 16384",
        b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + b"\x10\0\0\0"
        + b"\xff\x3f\0" * 2,
    )  # fmt: skip
    yield Hostile("mp4 of 16384 x 16384", _mp4_of_size(16_384, 16_384))
    yield Hostile("mp4 of 200000 empty pictures", _tiny_packets("mp4", 200_000))
    yield Hostile("mkv of 200000 empty pictures", _tiny_packets("matroska", 200_000))
    yield Hostile("avi of 200000 empty pictures", _tiny_packets("avi", 200_000))
    yield Hostile("mkv that lasts a thousand years", far_apart("matroska", 2**45))
    yield Hostile("ts with times that jump", far_apart("mpegts", 2**32))
    yield Hostile("flv that lasts for weeks", far_apart("flv", 2**31 - 5000))
    boxes = b"".join(struct.pack(">I", 8 * n + 8) + b"moov" for n in range(100_000, 0, -1))
    yield Hostile("mp4 of boxes within boxes", _FTYP + boxes)
    yield Hostile("mp4 of a million boxes", _FTYP + (struct.pack(">I", 8) + b"free") * 1_000_000)
    yield Hostile(
        "mkv of masters within masters",
        b"\x1a\x45\xdf\xa3\x80" + b"\x18\x53\x80\x67\x01" + b"\xff" * 7
        + b"\x1f\x43\xb6\x75\x01\xff\xff\xff\xff\xff\xff\xff" * 50_000,
    )  # fmt: skip


_FTYP = struct.pack(">I", 16) + b"ftypisom\0\0\2\0"


def _packed(row: bytes, count: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join([*(packer.compress(row) for _ in range(count)), packer.flush()])


def _exif(entries: int, loop: bool = False) -> bytes:
    """A directory of so many entries; one that loops has itself as its next, and in itself."""
    count = min(entries, 65_535)
    entry = struct.pack("<HHII", 0x8769 if loop else 0x010F, 4, 1, 8)
    return b"II*\0" + struct.pack("<IH", 8, count) + entry * entries + struct.pack("<I", 8)


def _jpeg(**options: Any) -> bytes:
    data = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(data, "JPEG", **options)
    return data.getvalue()


def _with_size(jpeg: bytes, width: int, height: int) -> bytes:
    at = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:at] + struct.pack(">HH", height, width) + jpeg[at + 4 :]


def _with_scans(jpeg: bytes, count: int) -> bytes:
    """A picture as large as may be, whose last scan comes again and again."""
    at = jpeg.index(b"\xff\xc2") + 5
    jpeg = jpeg[:at] + struct.pack(">HH", 7000, 7000) + jpeg[at + 4 :]
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:last] + jpeg[last:-2] * count + jpeg[-2:]


def _mp4_of_size(width: int, height: int) -> bytes:
    """As its sample description says, and as its decoder's own header does."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream: Any = container.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = 8, 8, "rgb24"
        container.mux(stream.encode(av.VideoFrame(8, 8, "rgb24")))
        container.mux(stream.encode(None))
    small, large = struct.pack(">HH", 8, 8), struct.pack(">HH", width, height)
    return (
        file.getvalue().replace(small, large).replace(
            struct.pack(">II", 8, 8), struct.pack(">II", width, height)
        )
    )  # fmt: skip


def _tiny_packets(format_: str, count: int) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=format_) as container:
        stream: Any = container.add_stream("mjpeg", rate=1000)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuvj420p"
        container.start_encoding()
        for number in range(count):
            packet = av.Packet(b"\0")
            packet.stream, packet.pts, packet.dts = stream, number, number
            packet.time_base = stream.time_base
            packet.is_keyframe = True
            container.mux_one(packet)
    return file.getvalue()


def far_apart(format_: str, ticks: int) -> bytes:
    """A video of a few pictures, so many ticks of its clock from one to the next."""
    file = io.BytesIO()
    codec = "flv" if format_ == "flv" else "mpeg4"
    with av.open(file, "w", format=format_) as container:
        stream: Any = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        packets = []
        for _ in range(4):
            packets += stream.encode(av.VideoFrame(64, 48, "yuv420p"))
        packets += stream.encode(None)
        container.start_encoding()
        for number, packet in enumerate(packets):
            packet.stream = stream
            packet.time_base = stream.time_base
            packet.pts = packet.dts = number if number < 2 else ticks + number
            container.mux_one(packet)
    return file.getvalue()
