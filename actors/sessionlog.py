"""The log of one owner: records become durable in groups, and only while the owner is not fenced.

One thread writes. What arrives while a batch is being written goes into the next one, so that a
slow store costs every writer about one write, however many there are.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue

from actors.statestore import Record, StateStore
from longreel.errors import LongreelError, StorageError

#: Bound on the blobs of one batch, in bytes.
_BATCH_BYTES = 32 * 2**20


class FencedError(LongreelError):
    """The owner was declared lost: what it wrote last is not acknowledged."""


@dataclass(frozen=True)
class _Waiting:
    records: Sequence[Record]
    done: Future[None]


class SessionLog:
    """Appends records to an owner's log.

    After a write, and before anybody hears of it, the fence is looked for. Whoever fenced the owner
    reads its log after that: either the write was there to be read, or it is not acknowledged.

    Args:
        wrote: hears of each write, in the thread that writes: its seconds, and whether it failed.
    """

    def __init__(
        self,
        store: StateStore,
        owner: str,
        wrote: Callable[[float, bool], None] = lambda seconds, failed: None,
    ) -> None:
        self._store, self._owner, self._wrote = store, owner, wrote
        self._queue: SimpleQueue[_Waiting | Callable[[], None] | None] = SimpleQueue()
        self._number, self._ended = 0, False
        #: Of each batch, the last sequence number that it holds of each life.
        self._batches: dict[int, dict[str, int]] = {}
        threading.Thread(target=self._run, name="session-log", daemon=True).start()

    def append(self, records: Sequence[Record]) -> Future[None]:
        """Make ``records`` durable, in order and together.

        Returns:
            A future; it raises ``FencedError``, as it does after ``close``, or ``StorageError``
            when they could not be written. Then they may or may not be found by a reader later.
        """
        done: Future[None] = Future()
        # So that nobody who leaves can cancel it: the thread would end at a result it cannot give.
        done.set_running_or_notify_cancel()
        if self._ended:
            done.set_exception(self._fenced_error())
            return done
        self._queue.put(_Waiting(records, done))
        return done

    def forget(self, life: str, seq: int) -> None:
        """Records of ``life`` up to ``seq`` are needed no more."""

        def drop() -> None:
            for number, held in list(self._batches.items()):
                if held.get(life, seq + 1) <= seq:
                    del held[life]
                if not held:
                    del self._batches[number]
                    self._store.delete_batch(self._owner, number)

        self._queue.put(drop)

    def close(self) -> None:
        """End the thread when all that waits is written; nothing is taken any more.

        To be called where ``append`` is.
        """
        self._ended = True
        self._queue.put(None)

    def _fenced_error(self) -> FencedError:
        return FencedError(f"{self._owner} was declared lost")

    def _run(self) -> None:
        batch: list[_Waiting] = []
        size = 0
        while True:
            found = self._queue.get()
            if isinstance(found, _Waiting):
                batch.append(found)
                size += sum(len(record.blob) for record in found.records)
                if not self._queue.empty() and size < _BATCH_BYTES:
                    continue
            if batch:
                self._write(batch)
                batch, size = [], 0
            if found is None:
                return
            if not isinstance(found, _Waiting):
                try:
                    found()
                except StorageError:
                    # A batch too many lies in the store until its owner's log is deleted.
                    continue

    def _write(self, batch: Sequence[_Waiting]) -> None:
        self._number += 1
        records = [record for waiting in batch for record in waiting.records]
        started = time.perf_counter()
        failure: Exception | None = None
        try:
            self._store.append(self._owner, self._number, records)
            fenced = self._store.fenced(self._owner)
        except Exception as error:
            failure, fenced = error, False
        # Before anybody hears of the write itself.
        self._wrote(time.perf_counter() - started, failure is not None)
        if fenced:
            failure = self._fenced_error()
        if failure is not None:
            for waiting in batch:
                waiting.done.set_exception(failure)
            return
        held: dict[str, int] = {}
        for record in records:
            held[record.life] = max(record.seq, held.get(record.life, 0))
        self._batches[self._number] = held
        for waiting in batch:
            waiting.done.set_result(None)
