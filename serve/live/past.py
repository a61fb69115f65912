"""What a session was before it is taken in: its last snapshot, and what was logged after it."""

from __future__ import annotations

import asyncio

from actors.statestore import Manifest, Record, StateStore

#: How long what a lost owner logged is kept in memory for the next of its sessions, in seconds.
_TAIL_S = 60.0


class Past:
    """Reads the past of sessions; all methods run on one event loop."""

    def __init__(self, store: StateStore) -> None:
        self._store = store
        #: What lost owners logged, by life.
        self._tails: dict[str, dict[str, list[Record]]] = {}
        self._lock = asyncio.Lock()

    async def of(
        self, manifest: Manifest, me: str, *, mine: bool
    ) -> tuple[bytes | None, list[Record]] | None:
        """The last snapshot, if there is one, and the records of owners since.

        None where it was assigned anew or closed meanwhile: part of the records may be deleted.

        Args:
            me: name of the owner that asks.
            mine: whether what it logged itself is part of it.

        Raises:
            StorageError: the store cannot be read.
        """
        snapshot = None
        if manifest.snapshot is not None:
            snapshot = await asyncio.to_thread(
                self._store.read_snapshot, manifest.session, manifest.snapshot
            )
        records: list[Record] = []
        owners = [owner for owner in manifest.tail if owner != me or mine]
        for owner in owners:
            # What it goes on to write would be missing, were it kept until others ask.
            tail = await self._tail(owner, keep=owner != me)
            # In logs from before they told lives apart it has its id alone.
            records += tail.get(manifest.session, []) + tail.get(manifest.life, [])
        if owners:
            # The store's, for a directory may not know yet that it has been taken over.
            now = await asyncio.to_thread(self._store.manifest, manifest.session)
            if now is None or (now.life, now.epoch) != (manifest.life, manifest.epoch):
                return None
        return snapshot, records

    async def _tail(self, owner: str, *, keep: bool) -> dict[str, list[Record]]:
        """What an owner logged, by life; with ``keep`` it is read once for all of them."""
        async with self._lock:
            if owner in self._tails:
                return self._tails[owner]
            found: dict[str, list[Record]] = {}

            def read() -> None:
                for record in self._store.records(owner):
                    found.setdefault(record.life, []).append(record)

            await asyncio.to_thread(read)
            if keep:
                self._tails[owner] = found
                asyncio.get_running_loop().call_later(_TAIL_S, self._tails.pop, owner, None)
            return found
