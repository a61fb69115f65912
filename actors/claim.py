"""Which cluster serves from a state store: one at a time, and how the next one takes over.

``claims/TERM-CLUSTER`` is a claim, renewed by its cluster while that lives; the highest name holds
the store. A cluster that takes over claims the next term. A claim that is given up stays where it
is and says so: there is always a higher one than that of a cluster that was taken over, which may
wake up at any time and renew its own.

No clock decides who may write. Whoever takes over reads the sessions after its claim is written;
whoever was taken over looks for a higher claim after each write that counts, and before anybody
hears of it (``holds``). So either the next cluster has read the write, or nobody was told of it.
Clocks only say when it is time to take over.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import threading
import time
from typing import Any

from actors.holder import STALE_S, Watch, dead, here, read_holder
from actors.objects import delete_object, join_uri, list_objects, normalize_uri, write_bytes
from longreel.errors import LongreelError, StorageError

#: Seconds between two looks at a claim that another cluster holds.
LOOK_S = 1.0
_NAME = re.compile(r"\d{8}-[0-9a-f]{12}")


class StoreClaim:
    """What one cluster has to do with the claims on a state store; for several threads.

    A process that begins anew in the cluster that holds the store goes on at once.

    Args:
        store: uri of the state store.
        cluster: its name, which no other has and which it keeps while it lives.
        pid: of a process that lives while the cluster does here; this one when None.

    Attributes:
        term: under which this cluster holds the store; 0 while it does not.
        holder: who else held it when that was last seen.
    """

    def __init__(self, store: str, cluster: str, pid: int | None = None) -> None:
        self.store = normalize_uri(store)
        self._folder = join_uri(self.store, "claims")
        self._cluster, self._name = cluster, hashlib.sha256(cluster.encode()).hexdigest()[:12]
        self._here = here(pid)
        self._since: float | None = None
        self._watch, self._first, self._seen = Watch(), list[Any](), list[Any]()
        #: The last term that this process gave up: what it began then is not to be gone on with.
        self._past = 0
        self._turn, self._noting = threading.Lock(), threading.Lock()
        self.term = 0
        self.holder: dict[str, Any] | None = None

    def look(self) -> bool:
        """Take the store where it is free: never claimed, given up, or its holder gone.

        Returns:
            Whether this cluster holds it.

        Raises:
            StorageError: nobody can say.
        """
        with self._turn:
            if self.term:
                return True
            try:
                return self._look()
            except StorageError:
                self._watch.interrupted()
                raise

    def _look(self) -> bool:
        names = self._names()
        if not names:
            return self._take(1)
        term, _, cluster = names[-1].partition("-")
        if cluster == self._name:
            if int(term) == self._past or _shared(term, names):
                return self._take(int(term) + 1)
            self.term = int(term)
            return True
        holder = read_holder(self._uri(names[-1]))
        self.holder, self._seen = holder, [names[-1], holder]
        self._first = self._first or self._seen
        free = holder is not None and (holder.get("released") or dead(holder))
        if not free and self._watch.unchanged_s(self._seen, time.monotonic()) < STALE_S:
            return False
        return self._take(int(term) + 1)

    def take(self) -> None:
        """Hold the store, if its holder elsewhere does not renew its claim within ``STALE_S``.

        Raises:
            LongreelError: another cluster serves from it.
        """
        while not self.look():
            if self._seen != self._first:
                raise LongreelError(
                    f"{self.store} is in use: {self.other()}. End that first, or serve from "
                    "another state store"
                )
            time.sleep(LOOK_S)

    def holds(self, term: int) -> bool:
        """Whether the store is still held under ``term``; once it is not, it never is again.

        Raises:
            StorageError: nobody can say.
        """
        return self._noted(term, self._names())

    def renew(self) -> bool:
        """Say that this cluster lives, if it still holds the store.

        Raises:
            StorageError: it could not be said for once, or nobody can say.
        """
        with self._turn:
            term, names = self.term, self._names()
            if not term or not self._noted(term, names):
                return False
            self._write(term)
            for name in names:
                if name < self._key(term):
                    delete_object(self._uri(name))
            return True

    def release(self) -> None:
        """Leave the store to others at once."""
        with self._turn:
            term = self.term
            if term and self.holds(term):
                with self._noting:
                    self.term, self._past = 0, term
                self._write(term, released=True)

    def _noted(self, term: int, names: list[str]) -> bool:
        with self._noting:
            if self.term == term and names and names[-1] > self._key(term):
                self.term = 0
            return self.term == term

    def other(self) -> str:
        """Who else holds the store, in words."""
        if self.holder is None:
            return "another cluster serves from it"
        began = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(self.holder.get("since", 0)))
        return f"another cluster serves from it, on {self.holder.get('host')} since {began}"

    def _take(self, term: int) -> bool:
        self._since = time.time()
        self._write(term)
        names = self._names()
        if names[-1:] != [self._key(term)]:
            return False  # two came at once
        if _shared(f"{term:08d}", names):
            # The other one may hold that term already, and still write manifests of that name.
            return self._take(term + 1)
        self.term, self._watch, self._first = term, Watch(), []
        self.holder = None
        return True

    def _write(self, term: int, *, released: bool = False) -> None:
        uri = self._uri(self._key(term))
        if self._since is None:  # another process of this cluster began it
            self._since = float((read_holder(uri) or {}).get("since", time.time()))
        claim = {
            "cluster": self._cluster,
            "since": self._since,
            "released": released,
            "renewal": secrets.token_hex(8),
            **self._here,
        }
        write_bytes(uri, json.dumps(claim).encode())

    def _names(self) -> list[str]:
        """Of all claims, the one that holds last."""
        try:
            names = [found.uri.rpartition("/")[2] for found in list_objects(self._folder + "/")]
            return sorted(name for name in names if _NAME.fullmatch(name))
        except StorageError as failure:
            if failure.kind != "NotFound":
                raise
            return []

    def _key(self, term: int) -> str:
        return f"{term:08d}-{self._name}"

    def _uri(self, name: str) -> str:
        return join_uri(self._folder, name)


def _shared(term: str, names: list[str]) -> bool:
    """Whether several clusters claimed ``term``, as it is spelled in names."""
    return sum(name.startswith(f"{term}-") for name in names) > 1
