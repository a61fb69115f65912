"""Who is being served: the key of the request or connection that the running code is part of.

It travels with the context of asyncio, into the tasks and threads that a request begins, and so
reaches what keeps objects apart without passing through each route: a route that knows nothing of
keys cannot forget them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from serve.keys.key import Limits
from serve.keys.usage import Usage


@dataclass(frozen=True)
class Caller:
    """Whoever holds a key; ``id`` is the key's, empty for one who needs none and owns nothing."""

    id: str
    usage: Usage


_serving: ContextVar[Caller | None] = ContextVar("longreel_caller", default=None)


#: Who asks without a key for what needs none: sees no object and may make none.
NOBODY = Caller("", Usage.of(Limits(0, 0, 0, 0)))


def caller() -> Caller | None:
    """Who is served; None where keys are off, and in work that is done for no client."""
    return _serving.get()


def owner() -> str | None:
    """To whom belongs what is made now; None is nobody, as where keys are off."""
    found = _serving.get()
    return None if found is None else found.id


def sees(belongs_to: str | None) -> bool:
    """Whether whoever is served may know of what belongs to the key ``belongs_to``."""
    found = _serving.get()
    return found is None or (found.id != "" and found.id == belongs_to)


def check_frames() -> None:
    """Raises ``QuotaError`` where whoever is served may push not even one frame now."""
    if (found := _serving.get()) is not None:
        found.usage.frames.check()


def take_frames(count: int) -> None:
    """Count so many frames. Raises ``QuotaError`` where they may not pass; then none count."""
    if (found := _serving.get()) is not None:
        found.usage.frames.take(count)


def take_upload(size: int) -> None:
    """Count so many bytes that came. Raises ``QuotaError`` where they may not; then none count."""
    if (found := _serving.get()) is not None:
        found.usage.upload.take(size)


@contextmanager
def serving(who: Caller | None) -> Iterator[None]:
    """Code within, and what it begins, serves ``who``."""
    token = _serving.set(who)
    try:
        yield
    finally:
        _serving.reset(token)
