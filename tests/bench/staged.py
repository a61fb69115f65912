"""Functions for ``test_profile`` to time."""

from __future__ import annotations

import time
from collections.abc import Iterator


class Machine:
    """Calls a function, and steps a generator."""

    def outer(self, seconds: float) -> bytes:
        """Sleep after each of three steps."""
        for _ in steps(seconds):
            time.sleep(seconds)
        return inner(seconds)


def inner(seconds: float) -> bytes:
    """Some bytes, later."""
    if seconds < 0:
        raise ValueError("no bytes of less than no time")
    time.sleep(seconds)
    return b"three bytes here"


def steps(seconds: float) -> Iterator[int]:
    """Three steps, each after a while."""
    for step in range(3):
        time.sleep(seconds)
        yield step
