"""What pulls a source, in this process: what ends it beside the source and its session."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from longreel.errors import StorageError
from serve import pulling
from serve.keys.key import ApiKey, Limits, new_key
from serve.keys.keystore import revoke_key, write_key
from serve.live.items import SessionOptions
from serve.pulling import Puller
from serve.sources.addresses import SourceSettings
from serve.sources.records import StreamRecord, read_record, write_record
from tests.serve.memory_sessions import MemorySessions

#: Nobody listens there, so it is tried again and again.
URL = "http://127.0.0.1:9/live.ts"
SETTINGS = SourceSettings(allow_private=True, first_pause_s=0.02, longest_pause_s=0.02)


@dataclass
class Pulled:
    """A stream of a key, and the store that both lie in.

    Attributes:
        over: set when its process would have ended.
    """

    store: str
    key: ApiKey
    puller: Puller
    over: asyncio.Event

    @property
    def record(self) -> StreamRecord:
        found = read_record(self.store, "door")
        assert found is not None
        return found


async def until(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not reached():
            await asyncio.sleep(0.01)


async def pulled(store: str, patch: pytest.MonkeyPatch) -> Pulled:
    """It is being pulled, and tried again."""
    over = asyncio.Event()
    patch.setattr(pulling, "FRESH_S", 0.01)
    patch.setattr(pulling, "limit_memory", lambda _: None)
    patch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(current_actor=None))
    patch.setattr(ray, "kill", lambda _, no_restart: over.set())
    key, _ = new_key("door", Limits())
    write_key(store, key)
    sessions, now = MemorySessions(), time.time()
    await sessions.open(SessionOptions(owner=key.id), "door")
    record = StreamRecord("door", URL, "door", 2.0, 64, True, now, now, deaths=-1, owner=key.id)
    write_record(store, record)
    found = Pulled(store, key, Puller(URL, "door", store, lambda: sessions, SETTINGS), over)
    await until(lambda: found.record.state == "reconnecting")
    return found


def test_a_stream_ends_with_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against sources of a revoked key that are pulled for ever: nobody else sees them, and
    each has one of the places that all keys share."""

    async def scenario() -> None:
        stream = await pulled(str(tmp_path), monkeypatch)
        await asyncio.sleep(0.05)
        assert not stream.over.is_set()
        revoke_key(stream.store, stream.key.id)
        await asyncio.wait_for(stream.over.wait(), 10)
        assert (stream.record.state, stream.record.error) == ("failed", "its key was revoked")
        assert stream.record.ended_at is not None

    asyncio.run(scenario())


def test_a_store_that_is_away_ends_no_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against streams that a passing fault ends for good, and one after which nobody looks
    at their keys any more."""

    async def scenario() -> None:
        stream = await pulled(str(tmp_path), monkeypatch)
        asked = 0

        def away(*_: Any) -> bool:
            nonlocal asked
            asked += 1
            raise StorageError("Unreachable", "cannot read it")

        with monkeypatch.context() as patch:
            patch.setattr(pulling, "key_holds", away)
            await until(lambda: asked >= 3)
            assert not stream.over.is_set()
        revoke_key(stream.store, stream.key.id)
        await asyncio.wait_for(stream.over.wait(), 10)
        assert stream.record.state == "failed"

    asyncio.run(scenario())
