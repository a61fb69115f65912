"""The API called by its own description, rightly and wrongly: never a 5xx, and always an answer
that the description has.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import schemathesis

from bench.hostile_api import fuzz
from serve.live.items import SessionOptions
from serve.routes.app import build
from serve.routes.context import Context
from tests.serve.memory_jobs import MemoryJobs
from tests.serve.memory_sessions import MemorySessions
from tests.serve.served import MODEL, WordAnswers


@dataclass
class MemoryStreams:
    """Streams that run until they are stopped; nothing is pulled."""

    _streams: dict[str, dict[str, Any]] = field(default_factory=dict)

    async def start(self, wanted: dict[str, Any]) -> dict[str, Any]:
        name = wanted["id"] or f"stream-{len(self._streams)}"
        self._streams[name] = {
            "id": name,
            "object": "stream",
            "url": wanted["url"],
            "session": name,
            "state": "running",
            "error": None,
            "reconnect": wanted["reconnect"],
            "frames": 0,
            "dropped": 0,
            "seq": 0,
            "connections": 1,
            "created": 1,
        }
        return self._streams[name]

    async def list(self) -> list[dict[str, Any]]:
        return list(self._streams.values())

    async def get(self, stream: str) -> dict[str, Any] | None:
        return self._streams.get(stream)

    async def stop(self, stream: str) -> dict[str, Any] | None:
        return self._streams.get(stream)


class MemoryCluster:
    """No replica that reports."""

    async def state(self) -> dict[str, Any]:
        return {"replicas": [], "sessions": 1, "idle_sessions": 0}


@pytest.mark.slow
def test_every_answer_is_described(tmp_path: Path) -> None:
    """Guards against values that nobody thought of, and against a description that is not so."""
    sessions = MemorySessions()
    asyncio.run(sessions.open(SessionOptions(), "watched"))
    app = build(
        Context(
            sessions,
            WordAnswers(),
            MODEL,
            str(tmp_path),
            streams=MemoryStreams(),
            jobs=MemoryJobs(),
            cluster=MemoryCluster(),
        )
    )
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    known = {"session": "watched", "model": MODEL.name}
    found = fuzz(schema, 8, known)
    assert found.failures == {}
    assert found.calls > 200
    assert {200, 201, 400, 404, 422} <= set(found.statuses)
