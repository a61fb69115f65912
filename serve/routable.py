"""Which replicas calls from this process can reach, as the request routers in it hear."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Routable:
    """The replicas that are there and were; routers write it from their threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._there: set[str] = set()
        self._seen: set[str] = set()
        self._gone: list[Callable[[str], None]] = []

    def set(self, replicas: set[str]) -> None:
        """These and no others are there."""
        with self._lock:
            gone, self._there = self._there - replicas, set(replicas)
            self._seen |= replicas
            listeners = list(self._gone)
        for replica in gone:
            for tell in listeners:
                tell(replica)

    def discard(self, replica: str) -> None:
        """One has died."""
        with self._lock:
            left = self._there - {replica}
        self.set(left)

    def has(self, replica: str) -> bool:
        """Whether it is there."""
        with self._lock:
            return replica in self._there

    def there(self) -> frozenset[str]:
        """All that are there."""
        with self._lock:
            return frozenset(self._there)

    def has_gone(self, replica: str) -> bool:
        """Whether it was there and is no more."""
        with self._lock:
            return replica in self._seen and replica not in self._there

    def when_gone(self, tell: Callable[[str], None]) -> None:
        """``tell`` hears of each that goes, in the router's thread."""
        with self._lock:
            self._gone.append(tell)


ROUTABLE = Routable()
