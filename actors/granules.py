"""What a process has lately fetched of objects, in granules: stretches of one size."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable

#: Bytes of one, except the last of an object.
GRANULE_BYTES = 64 * 1024


class Granules:
    """Keeps the granules used last, ``max_bytes`` of them; for any number of threads.

    A granule is known by the version of its object and its place in it, and comes with the length,
    in granules, of the run that fetched it.
    """

    def __init__(self, max_bytes: int) -> None:
        self._most = max(1, max_bytes // GRANULE_BYTES)
        self._kept: OrderedDict[tuple[Hashable, int], tuple[bytes, int]] = OrderedDict()
        self._lock = threading.Lock()

    def __contains__(self, place: tuple[Hashable, int]) -> bool:
        with self._lock:
            return place in self._kept

    def get(self, place: tuple[Hashable, int]) -> tuple[bytes, int] | None:
        """A granule and its run's length, if it is still there."""
        with self._lock:
            found = self._kept.get(place)
            if found is not None:
                self._kept.move_to_end(place)
            return found

    def put(self, version: Hashable, first: int, block: bytes) -> None:
        """Take what one fetch brought, from granule ``first`` on."""
        run = -(-len(block) // GRANULE_BYTES)
        with self._lock:
            for i in range(run):
                granule = block[i * GRANULE_BYTES : (i + 1) * GRANULE_BYTES]
                self._kept[version, first + i] = granule, run
                self._kept.move_to_end((version, first + i))
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
