"""The log of one owner: groups, fences, failures of the store, and what it lets go."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from actors.sessionlog import FencedError, SessionLog
from actors.statestore import Record, StateStore
from longreel.errors import StorageError


class Slow(StateStore):
    """A store whose writes wait for a gate, and fail on demand."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.gate = threading.Event()
        self.batches: list[int] = []
        self.failing = False

    def append(self, owner: str, number: int, records: Sequence[Record]) -> None:
        self.gate.wait(10)
        if self.failing:
            raise StorageError("Full", "no room")
        super().append(owner, number, records)
        self.batches.append(len(records))


def _record(session: str, seq: int) -> Record:
    return Record(session, 1, seq, "question", {"text": str(seq)})


@pytest.fixture
def store(tmp_path: Path) -> Slow:
    return Slow(str(tmp_path))


def test_what_waits_for_a_slow_write_goes_together(store: Slow) -> None:
    """Guards group commit: many writers on a slow store wait for about one write each."""
    log = SessionLog(store, "a")
    done = [log.append([_record(f"s{i}", 1)]) for i in range(50)]
    time.sleep(0.05)
    assert not any(future.done() for future in done)
    store.gate.set()
    for future in done:
        future.result(10)
    assert sum(store.batches) == 50
    assert len(store.batches) <= 3
    assert sorted(r.life for r in store.records("a")) == sorted(f"s{i}" for i in range(50))


def test_a_fenced_owner_acknowledges_nothing(store: Slow) -> None:
    """Guards the takeover: a write after the fence may lie in the store, but nobody is told that
    it is durable."""
    store.gate.set()
    log = SessionLog(store, "a")
    log.append([_record("s", 1)]).result(10)
    store.fence("a", "lost")
    with pytest.raises(FencedError):
        log.append([_record("s", 2)]).result(10)
    SessionLog(store, "b").append([_record("s", 2)]).result(10)


def test_a_failed_write_fails_its_writers_and_no_later_one(store: Slow) -> None:
    """Guards against an acknowledgement of what was not written, and a log that fails for good."""
    store.gate.set()
    log = SessionLog(store, "a")
    store.failing = True
    with pytest.raises(StorageError, match="no room"):
        log.append([_record("s", 1)]).result(10)
    store.failing = False
    log.append([_record("s", 1)]).result(10)
    assert [r.seq for r in store.records("a")] == [1]


def test_a_writer_that_leaves_ends_nothing(store: Slow) -> None:
    """Guards against a cancelled call ending the thread that writes for everybody."""
    log = SessionLog(store, "a")
    log.append([_record("s", 1)]).cancel()
    store.gate.set()
    log.append([_record("s", 2)]).result(10)


def test_batches_go_when_all_their_sessions_are_kept_elsewhere(store: Slow) -> None:
    """Guards against a log that grows for ever, and against one that lets go too early."""
    store.gate.set()
    log = SessionLog(store, "a")
    log.append([_record("s", 1), _record("t", 1)]).result(10)
    log.append([_record("s", 2)]).result(10)

    def left() -> list[tuple[str, int]]:
        log.append([_record("last", 1)]).result(10)
        log.forget("last", 1)
        log.append([_record("last", 2)]).result(10)
        return [(r.life, r.seq) for r in store.records("a") if r.life != "last"]

    log.forget("s", 1)
    assert left() == [("s", 1), ("t", 1), ("s", 2)]
    log.forget("t", 5)
    assert left() == [("s", 2)]
    log.forget("s", 2)
    assert left() == []


def test_after_its_end_nothing_is_taken(tmp_path: Path) -> None:
    """Guards against callers that wait for ever for a thread that is no more."""
    log = SessionLog(StateStore(str(tmp_path)), "a")
    log.append([_record("s", 1)]).result(10)
    log.close()
    with pytest.raises(FencedError):
        log.append([_record("s", 2)]).result(10)
