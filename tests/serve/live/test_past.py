"""What a session was before, on a real store: whose logs are read, and how long they are kept."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.statestore import Manifest, Record, StateStore
from serve.live import past
from serve.live.past import Past


class Counting(StateStore):
    """A store that notes whose log was read."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.read: list[str] = []

    def records(self, owner: str) -> Iterator[Record]:
        self.read.append(owner)
        yield from super().records(owner)


def _written(store: StateStore, session: str, *tail: str) -> Manifest:
    found = Manifest(session, 1.0, {}, epoch=len(tail), owner=tail[-1], tail=tail)
    store.write_manifest(found)
    return found


def _record(manifest: Manifest, seq: int) -> Record:
    return Record(manifest.life, manifest.epoch, seq, "question", {"text": str(seq)})


async def _found(past: Past, manifest: Manifest, me: str, *, mine: bool = True) -> list[int]:
    found = await past.of(manifest, me, mine=mine)
    assert found is not None
    return [record.seq for record in found[1]]


def test_the_log_of_a_lost_owner_is_read_once_for_all_its_sessions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against a log that is read once a session, and against one that stays in memory, with
    all its pictures, until the next owner is lost."""

    async def work() -> None:
        store = Counting(str(tmp_path))
        one, two = (_written(store, name, "a", "b") for name in ("one", "two"))
        store.append("a", 1, [_record(one, 1), _record(two, 7)])
        kept = Past(store)
        monkeypatch.setattr(past, "_TAIL_S", 0.05)
        assert await _found(kept, one, "b", mine=False) == [1]
        assert await _found(kept, two, "b", mine=False) == [7]
        assert store.read == ["a"]
        assert kept._tails
        await asyncio.sleep(0.1)
        assert not kept._tails

    asyncio.run(work())


def test_what_an_owner_wrote_after_it_read_its_own_log_is_found(tmp_path: Path) -> None:
    """Guards what is acknowledged between an engine's failure and the loss of the owner: the next
    one may be of the same process, which has read this log before."""

    async def work() -> None:
        store = Counting(str(tmp_path))
        before = _written(store, "s", "a")
        store.append("a", 1, [_record(before, 1)])
        kept = Past(store)
        assert await _found(kept, before, "a") == [1]
        store.append("a", 2, [_record(before, 2)])
        assert await _found(kept, before, "a") == [1, 2]
        store.append("a", 3, [_record(before, 3)])
        after = _written(store, "s", "a", "b")
        assert await _found(kept, after, "b", mine=False) == [1, 2, 3]

    asyncio.run(work())


def test_who_is_not_the_owner_any_more_finds_nothing(tmp_path: Path) -> None:
    """Guards against a session that is told without its beginning: what the next owner has in a
    snapshot is deleted while this one, of which nobody knows that it was declared lost, reads."""

    async def work() -> None:
        store = Counting(str(tmp_path))
        manifest = _written(store, "s", "a", "b")
        store.append("a", 1, [_record(manifest, 1)])
        store.append("a", 2, [_record(manifest, 2)])
        assert await _found(Past(store), manifest, "b", mine=False) == [1, 2]
        _written(store, "s", "a", "b", "c")
        store.delete_batch("a", 1)
        assert await Past(store).of(manifest, "b", mine=False) is None
        store.close_session("s")
        assert await Past(store).of(manifest, "b", mine=False) is None

    asyncio.run(work())
