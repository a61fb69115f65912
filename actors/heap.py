"""What a decoding process does so that its heap stays as small as what it holds."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache

#: Blocks from this size on are mapped one by one: pictures of a segment, indexes of long videos.
MAPPED_BYTES = 2**20

#: ``M_MMAP_THRESHOLD`` of glibc's ``malloc.h``.
_MMAP_THRESHOLD = -3


@cache
def give_back_large_blocks() -> bool:
    """Has this process return each large block to the system as soon as it is freed.

    glibc begins so, but with the first large block that is freed it takes all up to that size
    (32 MiB at most) from its heap. There a segment's pictures and a video's index, which come and
    go in turn, leave holes that are never given back: the longer the index, the larger.

    Returns:
        Whether this C library can be told.
    """
    mallopt = _of_the_c_library("mallopt")
    return mallopt is not None and mallopt(_MMAP_THRESHOLD, MAPPED_BYTES) == 1


def give_back_holes() -> None:
    """Returns what lies free between small blocks, where the C library can; takes a millisecond."""
    if trim := _of_the_c_library("malloc_trim"):
        trim(0)


@cache
def _of_the_c_library(name: str) -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), name, None)
