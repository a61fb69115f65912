"""The session directory: assignments, fences, and what it knows after it died."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

from actors import directory as module
from actors.directory import Directory, DirectoryError
from actors.placement import Load
from actors.statestore import Record, StateStore

_Result = TypeVar("_Result")
MIB = 2**20


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.4)
    monkeypatch.setattr(module, "SILENT_S", 0.5)


def _run(work: Coroutine[Any, Any, _Result]) -> _Result:
    return asyncio.run(work)


async def _with(store: Path, *owners: str) -> Directory:
    found = Directory(str(store))
    for owner in owners:
        assert await found.report(owner, owner.upper(), Load(free_bytes=99 * MIB))
    return found


def test_a_session_stays_until_its_owner_is_lost(tmp_path: Path) -> None:
    """Guards placement: nothing but a loss moves a live session, whoever comes or has more room."""

    async def work() -> None:
        directory = await _with(tmp_path, "a")
        first = await directory.open("s", {"fps": 2.0}, "t")
        assert (first.owner, first.replica, first.epoch, first.tail) == ("a", "A", 1, ("a",))
        await directory.report("b", "B", Load(free_bytes=10_000 * MIB))
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
        assert await successor.report("a", "A", Load(free_bytes=MIB))
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


def test_a_silent_owner_loses_its_sessions_and_its_say(tmp_path: Path) -> None:
    async def work() -> None:
        directory = await _with(tmp_path, "a")
        await directory.open("s", {}, "t")
        await asyncio.sleep(0.6)
        await directory.report("b", "B", Load(free_bytes=MIB))
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
        assert not await directory.kept("s", 1, "old", {}, in_memory=True)
        assert list(store.records(first.owner))
        store.write_snapshot("s", "new", b"state")
        assert await directory.kept("s", 2, "new", {"seq": 7}, in_memory=True)
        now = await directory.manifest("s")
        assert (now.snapshot, now.tail, now.counts) == ("new", (second.owner,), {"seq": 7})
        # Nobody needs the lost owner's log any more.
        assert not list(store.records(first.owner))
        assert await directory.kept("s", 2, "idle", {"seq": 8}, in_memory=False)
        idle = await directory.manifest("s")
        assert (idle.owner, idle.replica, idle.tail) == (None, None, ())
        assert (await directory.locate("s")).epoch == 3
        await directory.close("s")
        assert store.manifests() == []
        assert not await directory.kept("s", 3, "late", {}, in_memory=True)

    _run(work())


def test_without_replicas_opening_fails_and_leaves_nothing(tmp_path: Path) -> None:
    async def work() -> None:
        directory = await _with(tmp_path)
        with pytest.raises(DirectoryError, match="no replica"):
            await directory.open("s", {}, "t")
        assert await directory.manifests() == []
        assert StateStore(str(tmp_path)).manifests() == []

    _run(work())
