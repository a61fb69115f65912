"""What an owner does every second, on a real engine and a real store."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from actors.statestore import StateStore
from longreel.errors import StorageError
from serve.live import keeping, rounds
from serve.live.items import Frame
from serve.live.owner import Owner
from tests.serve.live.test_owner import FRAMES, Service, _options


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "REPORT_S", 0.01)
    monkeypatch.setattr(keeping, "KEEP_FRAMES", 1)


@asynccontextmanager
async def _running(owner: Owner) -> AsyncIterator[None]:
    task = asyncio.create_task(owner.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _until(what: Any) -> None:
    async with asyncio.timeout(5):
        while not what():
            await asyncio.sleep(0.005)


def test_a_replica_reports_while_snapshots_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards a replica that works, on a store that is slow, against being declared lost."""
    go, began, reports = threading.Event(), threading.Event(), 0

    def write(*_: Any) -> None:
        began.set()
        go.wait(5)

    async def work() -> None:
        service = await Service(tmp_path, _options()).start()
        (owner,) = service.owners
        await service.give([Frame(FRAMES[0])])
        await service.listen(until_quiet=True)
        report = service.directory.report

        async def counted(*args: Any) -> Any:
            nonlocal reports
            reports += 1
            return await report(*args)

        monkeypatch.setattr(service.directory, "report", counted)
        monkeypatch.setattr(service.store, "write_snapshot", write)
        async with _running(owner):
            try:
                await _until(began.is_set)
                before = reports
                await _until(lambda: reports > before + 3)
            finally:
                go.set()

    asyncio.run(work())


def test_a_session_that_cannot_be_kept_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards sessions against one before them whose snapshot fails, and the log of the service
    against a line a second about it."""
    tried = 0

    async def work() -> None:
        service = await Service(tmp_path, _options()).start()
        (owner,) = service.owners
        write = StateStore.write_snapshot

        def failing(store: StateStore, session: str, name: str, data: bytes) -> None:
            nonlocal tried
            if session == "s":
                tried += 1
                raise StorageError("TooLarge", "no room for it")
            write(store, session, name, data)

        monkeypatch.setattr(StateStore, "write_snapshot", failing)
        await service.give([Frame(FRAMES[0])])
        await service.listen(until_quiet=True)
        other = await service.directory.open("other", dict(service.options.__dict__), "token")
        await owner.give(other, [Frame(FRAMES[0])], None, None)
        with caplog.at_level(logging.WARNING, "longreel.sessions"):
            async with _running(owner):
                await _until(lambda: service.directory._sessions["other"].manifest.snapshot)
                await _until(lambda: tried > 3)

    asyncio.run(work())
    said = [record.message for record in caplog.records if "no room for it" in record.message]
    assert len(said) == 1
