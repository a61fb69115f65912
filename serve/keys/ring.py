"""The keys as the gateway knows them: read from the state store, again every two seconds.

A store that cannot be read lets nobody in whom it did not let in before, and locks nobody out at
once: keys that held when it was last read go on for ``GRACE_S``. After that, and for keys that were
never seen, the answer is that nobody can tell.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from actors.objects import ObjectStat
from longreel.errors import LongreelError, StorageError
from serve.keys.key import ApiKey, matches, presented
from serve.keys.keystore import key_objects, read_key
from serve.live.items import SessionError

_log = logging.getLogger("longreel.api")

#: How old what is known may be, in seconds, while the store can be read.
FRESH_S = 2.0
#: And while it cannot.
GRACE_S = 60.0
#: How long a request waits for the store.
_PATIENCE_S = 2.0
#: Between two readings for keys that are not known: whoever makes keys up causes no more.
_UNKNOWN_S = 0.25


class KeyRing:
    """The keys of a state store.

    Args:
        store: its uri.
        clock: seconds that only grow.
    """

    def __init__(self, store: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self._clock = store, clock
        self._keys: dict[str, ApiKey] = {}
        self._objects: dict[str, tuple[ObjectStat, ApiKey | None]] = {}
        self._read_at = self._tried_at = -float("inf")
        self._reading: asyncio.Task[None] | None = None
        self._away = False

    async def find(self, text: str) -> ApiKey | None:
        """The key that a client sent, where it is one and holds.

        Raises:
            SessionError: ``unavailable``: the store cannot be read, and so nobody knows.
        """
        given = presented(text)
        if given is not None:
            known = given.id in self._keys
            await self._refresh(FRESH_S if known else _UNKNOWN_S)
            age_s = self._clock() - self._read_at
            if age_s > (GRACE_S if known else FRESH_S):
                raise SessionError("unavailable", "keys cannot be looked up at present")
        kept = self._keys.get(given.id) if given else None
        return kept if matches(given, kept) else None

    async def holds(self, id_: str) -> bool:
        """Whether the key ``id_``, which was let in, still holds as far as is known."""
        await self._refresh(FRESH_S)
        kept = self._keys.get(id_)
        return kept is not None and kept.revoked is None

    async def _refresh(self, most_s: float) -> None:
        """Read the store if what is known is older; many who want that share one reading."""
        now = self._clock()
        if self._reading is None:
            if now - self._tried_at <= most_s:
                return
            self._tried_at = now
            self._reading = asyncio.create_task(self._read(now), name="keys")
        # From its beginning on: a store that hangs must not hold every request up anew.
        left_s = self._tried_at + _PATIENCE_S - now
        if left_s > 0:
            # It goes on for others where this request ends.
            await asyncio.wait((self._reading,), timeout=left_s)

    async def _read(self, begun_at: float) -> None:
        try:
            objects = await asyncio.to_thread(_read_changed, self._store, self._objects)
        except (LongreelError, OSError) as error:
            if not self._away:
                _log.warning("the API keys cannot be read: %s", error)
            self._away = True
        else:
            self._away = False
            self._objects, self._read_at = objects, begun_at
            self._keys = {key.id: key for _, key in objects.values() if key is not None}
        finally:
            self._reading = None


def _read_changed(
    store: str, before: dict[str, tuple[ObjectStat, ApiKey | None]]
) -> dict[str, tuple[ObjectStat, ApiKey | None]]:
    """By uri, what lies there and the key that it is; only what changed is read.

    What is no key is left out, and said once; it must not keep all others from being read.
    """
    now: dict[str, tuple[ObjectStat, ApiKey | None]] = {}
    for found in key_objects(store):
        have = before.get(found.uri)
        if have is not None and have[0] == found:
            now[found.uri] = have
            continue
        try:
            key = read_key(found.uri)
            # Nobody may be another key by a copy under another name.
            now[found.uri] = found, key if found.uri.endswith(f"/{key.id}.json") else None
        except StorageError as error:
            if error.kind != "NotFound":  # it was deleted meanwhile
                raise
        except LongreelError as error:
            _log.warning("%s", error)
            now[found.uri] = found, None
    return now
