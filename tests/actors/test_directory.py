"""The session directory: assignments, fences, and what it knows after it died.

Guards against a session that two owners think theirs, and against one that nobody has because its
directory died or its owner fell silent.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

from actors import directory, owners
from actors.directory import Directory, DirectoryError, Reply
from actors.held import HeldStore
from actors.placement import Load
from actors.statestore import Manifest, Record, StateStore
from longreel.errors import StorageError

_Result = TypeVar("_Result")
MIB = 2**20


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (directory, owners):
        monkeypatch.setattr(module, "PATIENCE_S", 0.4)
    monkeypatch.setattr(owners, "SILENT_S", 0.5)
    monkeypatch.setattr(owners, "ROOM_S", 0.2)


def _load(free_mib: int, **fields: float) -> Load:
    capacity = 10_000 * MIB
    return Load(free_bytes=free_mib * MIB, capacity_bytes=capacity, **fields)  # type: ignore[arg-type]


def _run(work: Coroutine[Any, Any, _Result]) -> _Result:
    return asyncio.run(work)


async def _with(store: Path, *owners: str) -> Directory:
    found = Directory(str(store))
    for owner in owners:
        assert await found.report(owner, owner.upper(), _load(99))
    return found


def test_a_session_stays_until_its_owner_is_lost(tmp_path: Path) -> None:
    """Guards placement: nothing but a loss moves a live session, whoever comes or has more room."""

    async def work() -> None:
        directory = await _with(tmp_path, "a")
        first = await directory.open("s", {"fps": 2.0}, "t")
        assert (first.owner, first.replica, first.epoch, first.tail) == ("a", "A", 1, ("a",))
        await directory.report("b", "B", _load(9_000))
        for _ in range(5):
            assert await directory.locate("s") == first
        await directory.lost("a", "killed")
        second = await directory.locate("s")
        assert (second.owner, second.epoch, second.tail) == ("b", 2, ("a", "b"))
        assert StateStore(str(tmp_path)).fenced("a")
        assert not await directory.report("a", "A", Load())
        assert await directory.locate("s") == second
        assert directory.moves == 1

    _run(work())


def test_opening_may_be_repeated_and_ids_are_checked(tmp_path: Path) -> None:
    async def work() -> None:
        directory = await _with(tmp_path, "a")
        once = await directory.open("s", {}, "token")
        assert await directory.open("s", {}, "token") == once
        with pytest.raises(DirectoryError, match="already"):
            await directory.open("s", {}, "another")
        for name in ("", "../x", "a/b", "a" * 65, "_hidden", ".hidden"):
            with pytest.raises(DirectoryError, match="session id"):
                await directory.open(name, {}, "t")
        with pytest.raises(DirectoryError, match="no session 'nobody'"):
            await directory.locate("nobody")

    _run(work())


def test_a_directory_that_died_knows_all_again(tmp_path: Path) -> None:
    async def work() -> None:
        directory = await _with(tmp_path, "a", "b")
        opened = [await directory.open(f"s{i}", {"fps": i}, "t") for i in range(4)]
        await directory.lost("b", "killed")
        successor = Directory(str(tmp_path))
        # A lost owner stays lost, one that lives is believed as soon as it reports.
        assert not await successor.report("b", "B", Load())
        assert await successor.report("a", "A", _load(20))
        for one in opened:
            now = await successor.locate(one.session)
            assert now.owner == "a"
            assert now.options == one.options
            assert (now == one) == (one.owner == "a")

    _run(work())


def test_an_owner_that_does_not_come_back_after_a_restart_is_given_up(tmp_path: Path) -> None:
    async def work() -> None:
        await (await _with(tmp_path, "a")).open("s", {}, "t")
        successor = await _with(tmp_path, "b")
        assert (await successor.locate("s")).owner == "b"
        assert StateStore(str(tmp_path)).fenced("a")

    _run(work())


@pytest.mark.slow
def test_a_silent_owner_loses_its_sessions_and_its_say(tmp_path: Path) -> None:
    async def work() -> None:
        directory = await _with(tmp_path, "a")
        await directory.open("s", {}, "t")
        await asyncio.sleep(0.6)
        await directory.report("b", "B", _load(20))
        assert (await directory.locate("s")).owner == "b"
        assert not await directory.report("a", "A", Load())

    _run(work())


def test_snapshots_are_taken_from_the_present_owner_alone(tmp_path: Path) -> None:
    """Guards against a lost owner that still writes: what it kept must not become the truth."""

    async def work() -> None:
        store = StateStore(str(tmp_path))
        directory = await _with(tmp_path, "a", "b")
        first = await directory.open("s", {}, "t")
        assert first.owner is not None
        store.append(first.owner, 1, [Record("s", 1, 1, "question")])
        await directory.lost(first.owner, "killed")
        second = await directory.locate("s")
        assert second.owner is not None
        assert not await directory.kept(first.life, 1, "old", {}, in_memory=True)
        assert list(store.records(first.owner))
        store.write_snapshot("s", "new", b"state")
        assert await directory.kept(first.life, 2, "new", {"seq": 7}, in_memory=True)
        now = await directory.manifest("s")
        assert (now.snapshot, now.tail, now.counts) == ("new", (second.owner,), {"seq": 7})
        # Nobody needs the lost owner's log any more.
        assert not list(store.records(first.owner))
        assert await directory.kept(first.life, 2, "idle", {"seq": 8}, in_memory=False)
        idle = await directory.manifest("s")
        assert (idle.owner, idle.replica, idle.tail) == (None, None, ())
        assert (await directory.locate("s")).epoch == 3
        await directory.forget(first.life)
        assert store.sessions(0)[0] == []
        assert not await directory.kept(first.life, 3, "late", {}, in_memory=True)

    _run(work())


@pytest.mark.parametrize("fails", ["write", "look"])
def test_after_a_write_in_doubt_its_successor_knows_what_was_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """Guards inputs of a session that could not be let go, and whose owner took it in again."""

    async def work() -> None:
        store = StateStore(str(tmp_path))
        first = await _with(tmp_path, "a")
        opened = await first.open("s", {}, "t")
        with monkeypatch.context() as patch:
            write = HeldStore.write_manifest

            def written_all_the_same(self: HeldStore, manifest: Manifest) -> None:
                write(self, manifest)
                raise StorageError("SlowDown", "no answer came")

            def nobody_can_say(self: HeldStore, term: int) -> None:
                raise StorageError("SlowDown", "the claims cannot be read")

            if fails == "write":
                patch.setattr(HeldStore, "write_manifest", written_all_the_same)
            else:
                patch.setattr(HeldStore, "holds", nobody_can_say)
            with pytest.raises(StorageError):
                await first.kept(opened.life, 1, "snapshot-1-0", {}, in_memory=False)
            (written,) = store.sessions(0)[0]
            assert written.owner is None
            # Nobody is told anything that its successor would not know of.
            for call in (first.manifest("s"), first.locate("s")):
                with pytest.raises(StorageError):
                    await call
        told = await first.manifest("s")
        assert (told.owner, told.tail, told.snapshot) == ("a", ("a",), None)
        assert store.sessions(0)[0] == [told]
        assert await Directory(str(tmp_path)).manifests() == [told]

    _run(work())


def test_a_snapshot_is_told_of_again_where_nobody_answered(tmp_path: Path) -> None:
    """Guards the snapshot of a session that was let go: told no, its owner would delete it."""

    async def work() -> None:
        first = await _with(tmp_path, "a", "b")
        opened = await first.open("s", {}, "t")
        assert await first.kept(opened.life, 1, "snapshot-1-0", {}, in_memory=False)
        again = await _with(tmp_path, "a", "b")
        assert await again.kept(opened.life, 1, "snapshot-1-0", {}, in_memory=False)
        assert (await again.locate("s")).epoch == 2
        assert await again.kept(opened.life, 1, "snapshot-1-0", {}, in_memory=False)
        assert (await again.manifest("s")).epoch == 2
        assert await again.kept(opened.life, 2, "snapshot-2-0", {}, in_memory=True)
        assert not await again.kept(opened.life, 1, "snapshot-1-0", {}, in_memory=False)

    _run(work())


def _held_up(patch: pytest.MonkeyPatch, call: str) -> tuple[threading.Event, threading.Event]:
    """A call of the store waits: an event that comes when it does, and one that lets it go on."""
    amid, go_on = threading.Event(), threading.Event()
    original = getattr(HeldStore, call)

    def waits(*args: Any, **others: Any) -> Any:
        amid.set()
        assert go_on.wait(10)
        return original(*args, **others)

    patch.setattr(HeldStore, call, waits)
    return amid, go_on


@pytest.mark.slow
def test_a_name_is_free_once_all_of_it_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards a session against a slow end of the one that had its name before."""

    async def work() -> None:
        first = await _with(tmp_path, "a")
        old = await first.open("s", {}, "t")
        with monkeypatch.context() as patch:
            amid, go_on = _held_up(patch, "delete")
            closing = asyncio.create_task(first.forget(old.life))
            await asyncio.to_thread(amid.wait, 10)
            with pytest.raises(DirectoryError, match="there is a session"):
                await first.open("s", {}, "another")
            waiting = asyncio.create_task(first.locate("s"))
            await asyncio.sleep(0.05)
            go_on.set()
            await closing
        with pytest.raises(DirectoryError, match="no session"):
            await waiting
        opened = await first.open("s", {}, "another")
        assert await Directory(str(tmp_path)).manifests() == [opened]

    _run(work())


@pytest.mark.slow
def test_a_caller_that_leaves_lets_nobody_in_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards what is told of a session against a closing of before, whose writes go on."""

    async def work() -> None:
        first = await _with(tmp_path, "a")
        opened = await first.open("s", {}, "t")
        with monkeypatch.context() as patch:
            amid, go_on = _held_up(patch, "close_session")
            closing = asyncio.create_task(first.forget(opened.life))
            await asyncio.to_thread(amid.wait, 10)
            closing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await closing
            asked = asyncio.create_task(first.locate("s"))
            await asyncio.sleep(0.05)
            assert not asked.done()
            go_on.set()
            with pytest.raises(DirectoryError, match="no session"):
                await asked
        assert await Directory(str(tmp_path)).manifests() == []

    _run(work())


def test_an_opening_that_failed_leaves_its_name_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards a camera's fixed id against a store that failed once."""

    def fails(self: HeldStore, manifest: Manifest) -> None:
        raise StorageError("SlowDown", "the store fails for a while")

    async def work() -> None:
        first = await _with(tmp_path, "a")
        with monkeypatch.context() as patch:
            patch.setattr(HeldStore, "write_manifest", fails)
            with pytest.raises(StorageError):
                await first.open("s", {}, "t")
        assert await first.manifests() == []
        opened = await first.open("s", {}, "another")
        assert (opened.epoch, opened.options) == (1, {"token": "another"})

    _run(work())


def test_what_is_meant_for_another_life_is_not_done(tmp_path: Path) -> None:
    """Guards a session against whoever still keeps or closes the one that had its name before."""

    async def work() -> None:
        first = await _with(tmp_path, "a")
        old = await first.open("s", {}, "t")
        await first.forget(old.life)
        new = await first.open("s", {}, "another")
        assert (old.owner, old.epoch) == (new.owner, new.epoch)
        # Nor is it closed, by whoever asks again since the first answer never came.
        with pytest.raises(DirectoryError, match="no session"):
            await first.forget(old.life)
        assert not await first.kept(old.life, 1, "snapshot-1-9", {}, in_memory=False)
        assert await first.manifest("s") == new

    _run(work())


@pytest.mark.slow
def test_it_begins_while_the_store_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a directory that ends for good: Ray begins none again that cannot begin."""

    def fails(self: HeldStore, term: int) -> None:
        raise StorageError("SlowDown", "the store fails for a while")

    async def work() -> None:
        opened = await (await _with(tmp_path, "a")).open("s", {}, "t")
        with monkeypatch.context() as patch:
            patch.setattr(HeldStore, "sessions", fails)
            again = Directory(str(tmp_path))
        with pytest.raises(DirectoryError, match="being read"):
            await again.manifests()
        tending = asyncio.create_task(again.tend())
        async with asyncio.timeout(10):
            while not again._store.is_held:
                await asyncio.sleep(0.01)
        assert await again.manifests() == [opened]
        tending.cancel()

    _run(work())


@pytest.mark.slow
def test_what_cannot_be_deleted_is_closed_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against a session that is told of without its snapshot."""

    def fails(self: HeldStore, uris: list[str]) -> None:
        raise StorageError("SlowDown", "the store fails for a while")

    async def work() -> None:
        store = StateStore(str(tmp_path))
        first = await _with(tmp_path, "a")
        opened = await first.open("s", {}, "t")
        store.write_snapshot("s", "snapshot-1-0", b"state")
        assert await first.kept(opened.life, 1, "snapshot-1-0", {}, in_memory=True)
        with monkeypatch.context() as patch:
            patch.setattr(HeldStore, "delete", fails)
            await first.forget(opened.life)
        assert store.sessions(0)[0] == []
        _, left = store.sessions(10)
        assert [uri.rpartition("/")[2] for uri in left[0]] == [
            "snapshot-1-0", "manifest-00000001.json"
        ]  # fmt: skip

    _run(work())


@pytest.mark.slow
def test_without_replicas_opening_fails_and_leaves_nothing(tmp_path: Path) -> None:
    async def work() -> None:
        directory = await _with(tmp_path)
        with pytest.raises(DirectoryError, match="no replica"):
            await directory.open("s", {}, "t")
        assert await directory.manifests() == []
        assert StateStore(str(tmp_path)).sessions(0)[0] == []

    _run(work())


def _behind(live: float = 1.4) -> Load:
    return _load(9_000, live=live, lag_s=5.0, sessions=10)


@pytest.mark.slow
def test_new_sessions_wait_for_room_and_are_told_that_there_is_none(tmp_path: Path) -> None:
    """Guards those who are there: a crowd that is taken in all the same makes all of them late."""

    async def work() -> None:
        directory = await _with(tmp_path, "a")
        await directory.open("early", {}, "t")
        assert await directory.report("a", "A", _behind()) == Reply()
        with pytest.raises(DirectoryError) as refused:
            await directory.open("late", {}, "t")
        assert refused.value.code == "overloaded"
        with pytest.raises(DirectoryError):
            await directory.place()
        # The policy hears of them; what was refused is not kept.
        reply = await directory.report("a", "A", _behind())
        assert reply == Reply(waiting_sessions=2)
        assert [m.session for m in await directory.manifests()] == ["early"]
        # Those that are known stay, and go on elsewhere if they must.
        assert (await directory.locate("early")).owner == "a"
        waiting = asyncio.create_task(directory.open("late", {}, "t"))
        await asyncio.sleep(0.05)
        await directory.report("b", "B", _load(9_000))
        assert (await waiting).owner == "b"
        reply = await directory.report("b", "B", _load(9_000))
        assert reply is not None
        assert reply.waiting_sessions == 1  # whom nobody asked for again

    _run(work())


def test_one_session_at_a_time_leaves_who_is_behind(tmp_path: Path) -> None:
    """Guards relief: only towards somebody who has room, and no more than are needed."""

    async def work() -> None:
        directory = await _with(tmp_path, "a")
        assert await directory.report("a", "A", _behind()) == Reply()
        await directory.report("b", "B", _behind())
        assert await directory.report("a", "A", _behind()) == Reply()
        await directory.report("b", "B", _load(9_000, live=0.2))
        assert await directory.report("a", "A", _behind()) == Reply(relieve=True)
        assert await directory.report("a", "A", _behind()) == Reply()
        assert await directory.report("b", "B", _load(9_000, live=0.2)) == Reply()


@pytest.mark.slow
def test_owners_are_told_of_while_they_report(tmp_path: Path) -> None:
    """Guards against replicas that are gone and still shown."""

    async def work() -> None:
        directory = await _with(tmp_path, "a", "b")
        told = await directory.owners()
        assert {n: (r, load.free_bytes) for n, (r, load, _) in told.items()} == {
            "a": ("A", 99 * MIB),
            "b": ("B", 99 * MIB),
        }
        assert all(0 <= age < 0.5 for _, _, age in told.values())
        await directory.lost("a", "killed")
        assert set(await directory.owners()) == {"b"}
        await asyncio.sleep(0.6)
        assert await directory.owners() == {}

    _run(work())
