"""Two clusters on one state store: a directory each, on real stores, without Ray.

The first one loses its claim and does not know it yet, at every point of what it is about; what it
tells anybody must be what the second one goes on with.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from actors import claim, directory, held
from actors.directory import Directory, DirectoryError
from actors.placement import Load
from actors.sessionlog import FencedError, SessionLog
from actors.statestore import Manifest, Record, StateStore

pytestmark = pytest.mark.waits

LOAD = Load(free_bytes=2**30, capacity_bytes=2**30)


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.objectstore)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "state")
    return f"s3://{request.getfixturevalue('bucket')}/state"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim, "STALE_S", 0.6)
    monkeypatch.setattr(held, "RENEW_S", 0.15)
    for module in (claim, held, directory):
        monkeypatch.setattr(module, "LOOK_S", 0.03)


def _run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


async def _cluster(store: str, name: str, *owners: str) -> Directory:
    found = Directory(store, name)
    for owner in owners or (f"{name}-owner",):
        assert await found.report(owner, owner.upper(), LOAD)
    return found


@asynccontextmanager
async def _tended(
    directory: Directory, wanted: Callable[[], bool] = lambda: True
) -> AsyncIterator[None]:
    tending = asyncio.create_task(directory.tend(wanted))
    try:
        yield
    finally:
        tending.cancel()
        with suppress(asyncio.CancelledError):
            await tending


async def _until_held(directory: Directory, within_s: float = 10.0) -> None:
    async with asyncio.timeout(within_s):
        while True:
            with suppress(DirectoryError):
                await directory.manifests()
                return
            await asyncio.sleep(0.01)


async def _refused(work: Coroutine[Any, Any, Any]) -> str:
    with pytest.raises(DirectoryError) as refused:
        await work
    assert refused.value.code == "unavailable"
    return refused.value.message


def _take_over(store: str, name: str = "b") -> Directory:
    """A directory of another cluster, for which the first one's claim is stale."""
    later = claim.StoreClaim(store, name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(claim, "STALE_S", 0.0)
        assert later.look()
    return Directory(store, name)


@pytest.mark.slow
def test_the_second_waits_says_so_and_goes_on_when_the_first_has_ended(store: str) -> None:
    """Guards an upgrade: the next cluster starts beside the one that serves, and takes over."""

    async def work() -> None:
        first = await _cluster(store, "a")
        opened = await first.open("s", {"fps": 2.0}, "t")
        log = SessionLog(StateStore(store), "a-owner")
        await asyncio.wrap_future(log.append([Record("s", 1, 1, "question")]))
        async with _tended(first):
            second = await _cluster(store, "b")
            async with _tended(second):
                await asyncio.sleep(1.0)
                for call in (second.manifests(), second.locate("s"), second.place()):
                    reason = await _refused(call)
                    assert f"on {socket.gethostname()} since 20" in reason
                assert await first.locate("s") == opened
                figures = [(await each.figures())["held"] for each in (first, second)]
                assert figures == [True, False]
                await first.release()
                await _until_held(second, 2.0)
                await second.report("b-owner", "B-OWNER", LOAD)
                # At once: nobody waits for owners that cannot report here.
                async with asyncio.timeout(5):
                    taken = await second.locate("s")
                assert (taken.owner, taken.epoch, taken.options) == ("b-owner", 2, opened.options)
                assert [r.seq for r in StateStore(store).records("a-owner")] == [1]
                assert "another cluster" in await _refused(first.locate("s"))
        with pytest.raises(FencedError):
            await asyncio.wrap_future(log.append([Record("s", 1, 2, "question")]))

    _run(work())


@pytest.mark.slow
def test_a_cluster_that_sleeps_is_followed_and_wakes_up_to_nothing(store: str) -> None:
    """Guards against two owners of one session after a pause of the first cluster."""

    async def work() -> None:
        first = await _cluster(store, "a")
        await first.open("s", {}, "t")
        second = await _cluster(store, "b")
        async with _tended(second):
            await _until_held(second)
            # The owner of the first has no say any more, though nobody called for its session.
            async with asyncio.timeout(5):
                while not StateStore(store).fenced("a-owner"):
                    await asyncio.sleep(0.01)
            async with _tended(first):
                async with asyncio.timeout(5):
                    while await first.report("a-owner", "A", LOAD) is not None:
                        await asyncio.sleep(0.01)
                await asyncio.sleep(0.2)
                assert "another cluster serves from it, on " in await _refused(first.locate("s"))
            assert (await second.locate("s")).owner == "b-owner"

    _run(work())


@pytest.mark.slow
def test_a_directory_that_begins_anew_in_its_cluster_goes_on_at_once(store: str) -> None:
    """Guards recovery: a new directory of the cluster that holds the store waits for nobody."""

    async def work() -> None:
        opened = await (await _cluster(store, "a")).open("s", {}, "t")
        again = Directory(store, "a")
        assert await again.report("a-owner", "A-OWNER", LOAD)
        assert await again.locate("s") == opened
        async with _tended(again):
            await asyncio.sleep(0.3)
        assert not StateStore(store).fenced("a-owner")

    _run(work())


class Stalling(held.HeldStore):
    """Stops where it is told to, as a process does that is paused or waits for a slow store."""

    before_write: Callable[[], None] | None = None
    after_write: Callable[[], None] | None = None

    def write_manifest(self, manifest: Manifest) -> None:
        if self.before_write:
            self.before_write()
        super().write_manifest(manifest)
        if self.after_write:
            self.after_write()


class Stall:
    """A point at which a thread waits until it may go on."""

    def __init__(self) -> None:
        self.there, self.go = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.there.set()
        assert self.go.wait(20)


@pytest.fixture(params=["before_write", "after_write"])
def point(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


async def _overtaken(
    store: str, first: Directory, point: str, call: Coroutine[Any, Any, Any]
) -> tuple[Directory, object]:
    """The second directory, which takes over while ``call`` on the first stalls, and its result."""
    stall = Stall()
    setattr(first._store, point, stall)
    calling = asyncio.create_task(call)
    assert await asyncio.to_thread(stall.there.wait, 20)
    second = await asyncio.to_thread(_take_over, store)
    await second.report("b-owner", "B-OWNER", LOAD)
    manifests = {m.session: m for m in await second.manifests()}
    if "s" in manifests:
        await second.locate("s")
    stall.go.set()
    results: list[object] = await asyncio.gather(calling, return_exceptions=True)
    return second, results[0]


@pytest.mark.slow
def test_whoever_is_overtaken_amid_an_assignment_gives_nothing_out(
    store: str, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards the hard case: a session that the first assigns anew while the second reads, or has
    read, the store. Two owners would both acknowledge, and one of them in vain."""
    monkeypatch.setattr(directory, "HeldStore", Stalling)

    async def work() -> None:
        first = await _cluster(store, "a", "one", "two")
        opened = await first.open("s", {}, "t")
        await first.lost(opened.owner or "", "killed")
        second, result = await _overtaken(store, first, point, first.locate("s"))
        assert isinstance(result, DirectoryError)
        assert result.code == "unavailable"
        now = await second.locate("s")
        assert now.owner == "b-owner"
        # What came too late is not what a directory finds that begins anew.
        again = Directory(store, "b")
        assert await again.manifests() == [now]

    _run(work())


@pytest.mark.slow
def test_whoever_is_overtaken_amid_an_opening_has_opened_nothing(
    store: str, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against a session that is said to be open, and that the next cluster never reads."""
    monkeypatch.setattr(directory, "HeldStore", Stalling)

    async def work() -> None:
        first = await _cluster(store, "a")
        _, result = await _overtaken(store, first, point, first.open("new", {}, "t"))
        assert isinstance(result, DirectoryError)

    _run(work())


@pytest.mark.slow
def test_whoever_is_overtaken_amid_a_snapshot_deletes_nothing(
    store: str, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards the next cluster's session: neither snapshot that it may go on from is deleted."""
    monkeypatch.setattr(directory, "HeldStore", Stalling)

    async def work() -> None:
        first, there = await _cluster(store, "a"), StateStore(store)
        opened = await first.open("s", {}, "t")
        there.write_snapshot("s", "old", b"old")
        assert await first.kept(opened.life, 1, "old", {}, in_memory=True)
        there.write_snapshot("s", "new", b"new")
        second, result = await _overtaken(
            store, first, point, first.kept(opened.life, 1, "new", {}, in_memory=True)
        )
        # Not False, at which an owner deletes what it has written.
        assert isinstance(result, DirectoryError)
        snapshot = (await second.manifest("s")).snapshot
        assert snapshot == {"before_write": "old", "after_write": "new"}[point]
        assert there.read_snapshot("s", snapshot) == snapshot.encode()
        again = Directory(store, "b")
        assert (await again.manifest("s")).snapshot == snapshot
        await _refused(first.kept(opened.life, 1, "newer", {}, in_memory=True))

    _run(work())


@pytest.mark.slow
def test_an_owner_that_the_second_does_not_know_of_acknowledges_nothing(store: str) -> None:
    """Guards what is acknowledged while the claim changes hands: either the second finds it, or
    its writer was told that it does not count."""

    async def work() -> None:
        first = await _cluster(store, "a")
        names = [f"s{n}" for n in range(8)]
        for name in names:
            await first.open(name, {}, "t")
        log, acknowledged = SessionLog(StateStore(store), "a-owner"), dict.fromkeys(names, 0)
        stop = asyncio.Event()

        async def write(name: str) -> None:
            seq = 0
            with suppress(FencedError):
                while not stop.is_set():
                    seq += 1
                    await asyncio.wrap_future(log.append([Record(name, 1, seq, "question")]))
                    acknowledged[name] = seq

        writing = [asyncio.create_task(write(name)) for name in names]
        await asyncio.sleep(0.3)
        second = await asyncio.to_thread(_take_over, store)
        await second.report("b-owner", "B-OWNER", LOAD)
        taken = [await second.locate(name) for name in names]
        found: dict[str, int] = dict.fromkeys(names, 0)
        for record in StateStore(store).records("a-owner"):
            found[record.life] = max(found[record.life], record.seq)
        await asyncio.sleep(0.2)
        stop.set()
        await asyncio.gather(*writing)
        assert {m.owner for m in taken} == {"b-owner"}
        assert all(acknowledged.values())
        assert all(found[name] >= acknowledged[name] for name in names)

    _run(work())


@pytest.mark.slow
def test_closing_is_refused_by_whoever_was_taken_over(store: str) -> None:
    """Guards the next cluster's data against a late call at the old one."""

    async def work() -> None:
        first = await _cluster(store, "a")
        opened = await first.open("s", {}, "t")
        second = await asyncio.to_thread(_take_over, store)
        await _refused(first.forget(opened.life))
        assert [m.session for m in await second.manifests()] == ["s"]
        assert [m.session for m in StateStore(store).sessions(0)[0]] == ["s"]

    _run(work())


@pytest.mark.slow
def test_whoever_is_overtaken_amid_a_closing_deletes_nothing(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards the next cluster's sessions, the one that was to be closed and the next of its name,
    and the client against a yes that does not hold."""
    close, later = held.HeldStore.close_session, list[Directory]()

    def overtaken(self: held.HeldStore, session: str, term: int = 0) -> list[str]:
        left = close(self, session, term)
        later.append(_take_over(store))
        return left

    async def work() -> None:
        first, there = await _cluster(store, "a"), StateStore(store)
        mine = await first.open("s", {}, "t")
        there.write_snapshot("s", "old", b"old")
        assert await first.kept(mine.life, 1, "old", {}, in_memory=True)
        with monkeypatch.context() as patch:
            patch.setattr(held.HeldStore, "close_session", overtaken)
            await _refused(first.forget(mine.life))
        (second,) = later
        assert there.read_snapshot("s", "old") == b"old"
        await second.report("b-owner", "B-OWNER", LOAD)
        opened = await second.open("s", {}, "another")
        await _refused(first.forget(opened.life))
        assert await Directory(store, "b").manifests() == [opened]

    _run(work())


@pytest.mark.slow
def test_a_closed_session_is_not_brought_back_by_a_late_write(store: str) -> None:
    """Guards against a session that its client closed at the second cluster, and that is listed
    again since the first one's last write arrived after that."""

    async def work() -> None:
        first = await _cluster(store, "a")
        opened = await first.open("s", {}, "t")
        second = await asyncio.to_thread(_take_over, store)
        await second.forget(opened.life)
        StateStore(store).write_manifest(opened)
        assert await Directory(store, "b").manifests() == []
        third = await asyncio.to_thread(_take_over, store, "c")
        async with _tended(third):
            async with asyncio.timeout(10):
                while list(StateStore(store)._below(f"{store}/sessions")):
                    await asyncio.sleep(0.02)

    _run(work())


@pytest.mark.slow
def test_while_nobody_is_served_the_store_is_left_to_others(store: str) -> None:
    """Guards a cluster that lives on without a service against keeping the next one out; and
    against staying out once it serves again."""

    async def work() -> None:
        serves = True
        first = await _cluster(store, "a")
        async with _tended(first, lambda: serves):
            await first.open("s", {}, "t")
            serves = False
            async with asyncio.timeout(5):
                while Directory(store, "b")._store.term == 0:
                    await asyncio.sleep(0.05)
            second = Directory(store, "b")
            await second.release()
            serves = True
            await _until_held(first)

    _run(work())


@pytest.mark.slow
def test_a_failing_store_is_waited_for(tmp_path: Path) -> None:
    """Guards the holder against giving up, or its task against ending, at a fault of the store."""

    async def work() -> None:
        first = await _cluster(str(tmp_path), "a")
        opened = await first.open("s", {}, "t")
        claims = tmp_path / "claims"
        async with _tended(first):
            await asyncio.sleep(0.2)
            with first._store._claim._turn:  # not amid a renewal
                claims.rename(tmp_path / "away")
                claims.write_text("no folder")
            await asyncio.sleep(0.4)
            assert await first.locate("s") == opened
            with first._store._claim._turn:
                claims.unlink()
                (tmp_path / "away").rename(claims)
            (file,) = claims.glob("0*")
            before = file.read_text()
            async with asyncio.timeout(5):
                while file.read_text() == before:
                    await asyncio.sleep(0.02)
            await first.lost("a-owner", "killed")
            await first.report("next", "NEXT", LOAD)
            assert (await first.locate("s")).owner == "next"

    _run(work())
