"""Streams as the service counts and keeps them, with their processes played by the test."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import ray

from serve.live.items import SessionError, SessionOptions, SessionView
from serve.sources.addresses import SourceSettings
from serve.sources.records import StreamRecord, read_record, write_record
from serve.streams import RayStreams
from tests.serve.memory_sessions import MemorySessions
from tests.serve.routes_server import MODEL

RUNS = StreamRecord(
    id="old",
    url="http://camera/",
    session="old",
    fps=2.0,
    side=96,
    reconnect=True,
    created=1.0,
    began_at=1.0,
    state="running",
    frames=9,
)


@dataclass(frozen=True)
class Process:
    """What pulls a stream, as an actor is called: ``process.record.remote()``."""

    name: str

    @property
    def record(self) -> Process:
        return self

    async def remote(self) -> None:
        """It begins, and knows of nothing newer than what is kept."""


@dataclass
class Processes:
    """Those that are there."""

    names: set[str] = field(default_factory=set)
    starting: Callable[[], None] = lambda: None

    def find(self, name: str) -> Process | None:
        return Process(name) if name in self.names else None

    def start(self, url: str, name: str) -> None:
        self.starting()
        self.names.add(name)

    def kill(self, process: Process, no_restart: bool) -> None:
        assert no_restart
        self.names.discard(process.name)


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Processes:
    found = Processes()
    monkeypatch.setattr("serve.streams.find_puller", found.find)
    monkeypatch.setattr(ray, "kill", found.kill)
    monkeypatch.setattr(RayStreams, "_start", found.start)
    return found


def streams(store: Path, sessions: MemorySessions, most: int = 2) -> RayStreams:
    """Those of a service on ``store``."""
    settings = SourceSettings(allow_private=True)
    return RayStreams(sessions, MemorySessions, MODEL, str(store), sources=settings, most=most)


def wanted(name: str) -> dict[str, Any]:
    return {"url": "http://127.0.0.1:9/x.ts", "options": SessionOptions(), "id": name}


def test_streams_of_a_cluster_that_ended_hold_no_place(
    processes: Processes, tmp_path: Path
) -> None:
    """Guards against a service that takes no stream any more, though it pulls none."""
    store = str(tmp_path)
    for name in ("one", "two"):
        write_record(store, replace(RUNS, id=name))

    async def scenario() -> None:
        service = streams(tmp_path, MemorySessions())
        assert (await service.start(wanted("new")))["state"] == "starting"
        for name in ("one", "two"):
            kept = read_record(store, name)
            assert kept is not None
            assert (kept.state, kept.frames) == ("failed", 9)
            assert kept.ended_at is not None, "it would never be forgotten"
        await service.start(wanted("newer"))
        with pytest.raises(SessionError, match="all 2 streams are taken"):
            await service.start(wanted("third"))

    asyncio.run(scenario())


def test_a_stream_that_another_call_is_starting_has_its_place(
    processes: Processes, tmp_path: Path
) -> None:
    """Guards against a stream that is called failed before its process is there, and so ends."""
    begins = replace(RUNS, id="begins", state="starting", deaths=-1, created=time.time())
    write_record(str(tmp_path), begins)

    async def scenario() -> None:
        service = streams(tmp_path, MemorySessions(), most=1)
        with pytest.raises(SessionError, match="all 1 streams are taken"):
            await service.start(wanted("new"))
        assert [each["state"] for each in await service.list()] == ["starting"]
        assert read_record(str(tmp_path), "begins") == begins
        # Its gateway died amid that.
        write_record(str(tmp_path), replace(begins, created=time.time() - 3600))
        await service.start(wanted("new"))

    asyncio.run(scenario())


def test_a_cluster_that_waits_for_the_store_gives_up_no_stream(
    processes: Processes, tmp_path: Path
) -> None:
    """Guards the streams of the cluster that holds the store, which another one cannot see."""
    write_record(str(tmp_path), RUNS)
    waits = MemorySessions(refusal=SessionError("unavailable", "another cluster serves from it"))

    async def scenario() -> None:
        service = streams(tmp_path, waits)
        with pytest.raises(SessionError, match="another cluster"):
            await service.start(wanted("new"))
        assert [each["state"] for each in await service.list()] == ["failed"]

    asyncio.run(scenario())
    assert read_record(str(tmp_path), "old") == RUNS


@pytest.mark.parametrize("amid", ["session", "record", "process"])
def test_a_client_that_leaves_amid_a_start_leaves_nothing(
    processes: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, amid: str
) -> None:
    """Guards against a place, a session and a process that nobody knows of."""
    reached, goes_on = threading.Event(), threading.Event()

    def pause() -> None:
        reached.set()
        assert goes_on.wait(10)

    def write(store: str, record: StreamRecord) -> None:
        if amid == "record":
            pause()
        write_record(store, record)

    class SlowSessions(MemorySessions):
        async def open(self, options: SessionOptions, session: str | None = None) -> SessionView:
            # As the directory does: to its end, whoever waits.
            return await asyncio.shield(asyncio.create_task(self._slowly(options, session)))

        async def _slowly(self, options: SessionOptions, session: str | None) -> SessionView:
            if amid == "session":
                await asyncio.to_thread(pause)
            return await super().open(options, session)

    monkeypatch.setattr("serve.streams.write_record", write)
    if amid == "process":
        processes.starting = pause

    async def scenario() -> None:
        sessions = SlowSessions()
        starting = asyncio.create_task(streams(tmp_path, sessions).start(wanted("left")))
        await asyncio.to_thread(reached.wait, 10)
        starting.cancel()
        await asyncio.sleep(0.05)
        goes_on.set()
        with pytest.raises(asyncio.CancelledError):
            await starting
        # What a thread was at when its task was cancelled ends by itself.
        await asyncio.sleep(0.05)
        assert read_record(str(tmp_path), "left") is None
        assert processes.names == set()
        assert [view.state for view in await sessions.list()] in ([], ["closed"])

    asyncio.run(scenario())
