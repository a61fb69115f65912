"""What a log that waits for more records would gain: group commit by the clock beside ours.

Ours has no interval: what arrives while a batch is being written is the next batch. Here the same
log is given its records by a clock, or one by one.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import numpy as np

from actors.sessionlog import SessionLog
from actors.statestore import Record, StateStore
from bench.ablate_knob import Knob, Row, in_turn
from mod.world.streams import World

DEFAULT = "0 ms"
#: Seconds to wait for more after a record arrived; None hands over each one alone, when the one
#: before is durable.
INTERVALS: dict[str, float | None] = {
    "alone": None,
    DEFAULT: 0.0,
    "20 ms": 0.02,
    "100 ms": 0.1,
}
SESSIONS, FPS = 24, 2.0
#: Of an object store's answers, assumed, in seconds.
PUT_S, HEAD_S = 0.03, 0.01


class Distant(StateStore):
    """A folder that answers as slowly as an object store."""

    def append(self, owner: str, number: int, records: Sequence[Record]) -> None:
        """Write one batch."""
        time.sleep(PUT_S)
        super().append(owner, number, records)

    def fenced(self, owner: str) -> bool:
        """Look for the fence."""
        time.sleep(HEAD_S)
        return super().fenced(owner)


class Gathering:
    """Hands records to a log together with those that come soon after.

    Args:
        seconds: as in ``INTERVALS``.

    Attributes:
        waited: seconds from each record's arrival to its acknowledgement.
    """

    def __init__(self, log: SessionLog, seconds: float | None) -> None:
        self._log, self._seconds = log, seconds
        self._queue: SimpleQueue[tuple[Record, float] | None] = SimpleQueue()
        self._handed: list[Future[None]] = []
        self._acknowledged = threading.Semaphore(0)
        self.waited: list[float] = []
        self._thread = threading.Thread(target=self._run, name="gathering", daemon=True)
        self._thread.start()

    def give(self, record: Record) -> None:
        """A record arrives."""
        if self._seconds == 0.0:
            self._hand([(record, time.perf_counter())])
        else:
            self._queue.put((record, time.perf_counter()))

    def finish(self) -> None:
        """Wait until all is durable.

        Raises:
            StorageError: something could not be written.
        """
        self._queue.put(None)
        self._thread.join()
        for future in self._handed:
            # A future is done before whoever asked to be called is called.
            self._acknowledged.acquire()
            future.result()

    def _run(self) -> None:
        more = True
        while more and (first := self._queue.get()) is not None:
            batch = [first]
            if self._seconds is not None:
                time.sleep(self._seconds)
                while more and not self._queue.empty():
                    found = self._queue.get()
                    if found is None:
                        more = False
                    else:
                        batch.append(found)
            done = self._hand(batch)
            if self._seconds is None:
                done.exception()

    def _hand(self, batch: Sequence[tuple[Record, float]]) -> Future[None]:
        def acknowledged(_: Future[None]) -> None:
            now = time.perf_counter()
            self.waited.extend(now - arrived for _, arrived in batch)
            self._acknowledged.release()

        done = self._log.append([record for record, _ in batch])
        self._handed.append(done)
        done.add_done_callback(acknowledged)
        return done


def committed(store: StateStore, seconds: float | None, span_s: float, seed: int = 0) -> Row:
    """Frames of many sessions, in Poisson arrivals, made durable.

    Returns:
        Milliseconds to an acknowledgement, of half and of all but one in a hundred; writes a
        second while there was something to write; records a write.
    """
    rng = np.random.default_rng(seed)
    n = max(1, round(SESSIONS * FPS * span_s))
    arrivals = np.cumsum(rng.exponential(1.0 / (SESSIONS * FPS), n))
    blob = next(iter(World(seed))).frame.tobytes()
    writes: list[float] = []
    log = SessionLog(
        store, f"owner-{time.monotonic_ns()}", lambda spent, failed: writes.append(spent)
    )
    gathering = Gathering(log, seconds)
    started = time.perf_counter()
    for number, due in enumerate(arrivals):
        time.sleep(max(0.0, started + due - time.perf_counter()))
        fields = {"token": None, "time_s": float(due), "side": 96}
        session = f"session-{number % SESSIONS}"
        gathering.give(Record(session, 1, number // SESSIONS, "frame", fields, blob))
    gathering.finish()
    spent = time.perf_counter() - started
    log.close()
    p50, p99 = np.percentile(gathering.waited, (50, 99))
    return {
        "p50_ms": 1e3 * float(p50),
        "p99_ms": 1e3 * float(p99),
        "writes_a_second": len(writes) / spent,
        "records_a_write": n / len(writes),
    }


def commits(store: type[StateStore], span_s: float, rounds: int) -> Knob:
    """All intervals in turn on stores of one kind, in a folder of this machine."""
    with tempfile.TemporaryDirectory() as folder:
        sides = {
            name: partial(committed, store(str(Path(folder) / name)), seconds, span_s)
            for name, seconds in INTERVALS.items()
        }
        return in_turn(DEFAULT, sides, rounds)
