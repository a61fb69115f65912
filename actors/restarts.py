"""Pictures with which a stream begins anew: nothing from them on is predicted from what was before.

A container's keyframe is not enough: an open GOP begins with one, and the pictures shown before it
but decoded after it refer to the GOP before; a stream refreshed bit by bit has nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

#: ``nal_unit_type`` of coded slices, and those of an instantaneous refresh (H.264 7.4.1.2.4; H.265
#: 7.4.2.2, where pictures that lead an ``IDR_W_RADL`` refer to nothing before it).
_H264_SLICES, _H264_REFRESH = range(1, 6), (5,)
_HEVC_SLICES, _HEVC_REFRESH = range(32), (19, 20)
#: Each picture stands for itself.
_PICTURE_BY_PICTURE = ("mjpeg", "prores", "dnxhd")


@dataclass(frozen=True)
class Restarts:
    """How the pictures of one stream begin anew.

    Attributes:
        at: whether they do with a keyframe, by its bytes.
        carry_headers: whether such a keyframe may bring along what pictures after the next one
            still need to be decoded.
        in_fields: whether a packet may hold half a picture, the next one the other half.
    """

    at: Callable[[bytes], bool]
    carry_headers: bool
    in_fields: bool


def restarts_of(codec: str, header: bytes) -> Restarts | None:
    """How the pictures of a stream begin anew.

    Args:
        codec: FFmpeg's name.
        header: ``extradata`` of the stream, empty where it has none.

    Returns:
        None for a codec of which this is not known.
    """
    if codec in _PICTURE_BY_PICTURE:
        return Restarts(lambda _: True, carry_headers=False, in_fields=False)
    # ``lengthSizeMinusOne`` of the decoder configuration record (ISO/IEC 14496-15).
    if codec == "h264":
        size = (header[4] & 3) + 1 if len(header) > 4 and header[0] == 1 else 0
        return Restarts(lambda data: _h264(data, size), not size, in_fields=not size)
    if codec == "hevc":
        size = (header[21] & 3) + 1 if len(header) > 21 and header[0] == 1 else 0
        return Restarts(lambda data: _hevc(data, size), not size, in_fields=not size)
    return None


def _h264(data: bytes, size: int) -> bool:
    kinds = (unit & 31 for unit in _units(data, size))
    return next((kind for kind in kinds if kind in _H264_SLICES), None) in _H264_REFRESH


def _hevc(data: bytes, size: int) -> bool:
    kinds = (unit >> 1 & 63 for unit in _units(data, size))
    return next((kind for kind in kinds if kind in _HEVC_SLICES), None) in _HEVC_REFRESH


def _units(data: bytes, size: int) -> Iterator[int]:
    """The first byte of each unit of a packet.

    Args:
        size: bytes of the length before each; 0 where start codes divide them.
    """
    if size:
        at = 0
        while at + size < len(data):
            yield data[at + size]
            at += size + int.from_bytes(data[at : at + size], "big")
        return
    at = data.find(b"\0\0\1")
    while 0 <= at < len(data) - 3:
        yield data[at + 3]
        at = data.find(b"\0\0\1", at + 3)
