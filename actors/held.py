"""The state store as a session directory has it: while the claim of its cluster holds, not else."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from actors.claim import LOOK_S, StoreClaim
from actors.holder import RENEW_S
from actors.statestore import Manifest, StateStore
from longreel.errors import StorageError

_log = logging.getLogger("longreel.directory")


class DirectoryError(Exception):
    """``code`` as in the HTTP API: ``session_not_found``, ``invalid_value``, ``overloaded``,
    ``unavailable``.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code, self.message = code, message


class HeldStore(StateStore):
    """A state store that is written under a claim.

    Args:
        uri: of the state store.
        claim: of this cluster on it.
        read: called with the manifests of all sessions when the claim holds, and again when it
            does after it did not.
        dropped: called when it does no more.

    Attributes:
        term: under which the sessions were read; 0 while the store is another's.
    """

    def __init__(
        self,
        uri: str,
        claim: StoreClaim,
        read: Callable[[list[Manifest], int], None],
        dropped: Callable[[], None],
    ) -> None:
        super().__init__(uri)
        self._claim, self._read, self._dropped = claim, read, dropped
        self.term = 0
        #: What earlier terms left of closed sessions.
        self._left_behind: list[list[str]] = []
        self._left, self._renewed = False, -RENEW_S
        #: Why nobody knows yet whose the store is.
        self._failure: StorageError | None = None
        try:
            if claim.look():
                self._load()
            else:
                _log.warning("%s is in use: %s", self.uri, claim.other())
        except StorageError as failure:
            # An actor whose beginning fails does not begin again. ``tend`` goes on with it.
            self._failure = failure
            _log.warning("%s cannot be read for now: %s", self.uri, failure)

    async def tend(self, wanted: Callable[[], bool]) -> None:
        """Renew the claim, or take the store over once it is free, until cancelled.

        A store that does not answer for a while is waited for.

        Args:
            wanted: whether anybody is served from here; while nobody is, the store is left to
                others. Called in a thread, and shall not wait.
        """
        # Of its own: what else waits for a slow store shall not hold up renewals.
        thread = ThreadPoolExecutor(1, "claim")
        loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    await loop.run_in_executor(thread, self._tend, wanted)
                except Exception as failure:
                    _log.warning("the claim on %s is not looked after: %s", self.uri, failure)
                await asyncio.sleep(LOOK_S)
        finally:
            thread.shutdown(wait=False)

    def tidy(self) -> None:
        """Delete what the terms before this one left of closed sessions."""
        left = self._left_behind
        while left:
            self.delete(left[-1])
            left.pop()

    def release(self) -> None:
        """Leave the store to others at once, and for good."""
        self._left = True
        self._give_up()

    @property
    def is_held(self) -> bool:
        """Whether this cluster holds the store, as far as is known without asking it."""
        return self.term > 0 and self._claim.term == self.term

    def held(self) -> int:
        """The term under which it does.

        Raises:
            DirectoryError: it does not.
        """
        if not self.is_held:
            raise self._refused()
        return self.term

    def holds(self, term: int) -> None:
        """See that the store is still held under ``term``.

        Raises:
            DirectoryError: another cluster has claimed it.
        """
        if not self._claim.holds(term):
            raise self._refused()

    def write_under(self, manifest: Manifest, term: int) -> Manifest:
        """Write a manifest under ``term``; nobody may hear of it before this returns.

        Raises:
            DirectoryError: another cluster has claimed the store, and may not have read it.
        """
        manifest = replace(manifest, term=term)
        self.write_manifest(manifest)
        self.holds(term)
        return manifest

    def close_under(self, session: str, term: int) -> None:
        """Close a session under ``term`` and delete what there is of it.

        Raises:
            DirectoryError: another cluster has claimed the store; nothing was deleted.
            StorageError: nobody can say whether it is closed; nothing was deleted.
        """
        # Said by whoever was taken over it would be heard by the next directory of its successor.
        self.holds(term)
        left = self.close_session(session, term)
        self.holds(term)
        try:
            self.delete(left)
        except StorageError as failure:
            # It is closed all the same, and the next term deletes the rest.
            _log.warning("something is left of a closed session: %s", failure)

    def _tend(self, wanted: Callable[[], bool]) -> None:
        if self._left or not wanted():
            self._give_up()
        elif not self._claim.term:
            self._claim.look()
        elif time.monotonic() - self._renewed >= RENEW_S:
            self._claim.renew()
            self._renewed = time.monotonic()
        if self.term == self._claim.term:
            return
        if self.term:
            self._drop()
            _log.warning("%s was lost: %s", self.uri, self._claim.other())
        if self._claim.term:
            self._load()

    def _give_up(self) -> None:
        if self.term:
            self._drop()
        self._claim.release()

    def _load(self) -> None:
        term = self._claim.term
        # What is left is known before anybody opens a session under an id that is free again.
        manifests, self._left_behind = self.sessions(term)
        self._read(manifests, term)
        self.term, self._failure = term, None

    def _drop(self) -> None:
        self.term = 0
        self._dropped()

    def _refused(self) -> DirectoryError:
        if self._claim.term:
            return DirectoryError("unavailable", "sessions are being read from the state store")
        if self._failure is not None and self._claim.holder is None:
            return DirectoryError("unavailable", f"the state store fails: {self._failure}")
        reason = f"the state store is in use: {self._claim.other()}"
        return DirectoryError("unavailable", f"{reason}; this one takes over when that has ended")
