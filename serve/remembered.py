"""Values that are remembered for a while after they were put here last."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

_Value = TypeVar("_Value")


class Remembered(Generic[_Value]):
    """By name, on one event loop.

    Args:
        seconds: for which a value is remembered; one that is put under its name again anew.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._values: dict[str, tuple[_Value, asyncio.TimerHandle]] = {}

    def put(self, name: str, value: _Value) -> None:
        """Remember ``value``."""
        # A timer of the value before would end the time of this one.
        self.forget(name)
        loop = asyncio.get_running_loop()
        self._values[name] = value, loop.call_later(self._seconds, self._values.pop, name)

    def get(self, name: str) -> _Value | None:
        """The value, while it is remembered."""
        found = self._values.get(name)
        return None if found is None else found[0]

    def forget(self, name: str) -> None:
        """Remember nothing under ``name``."""
        if found := self._values.pop(name, None):
            found[1].cancel()
