"""A service whose clients have keys, on sessions in memory and a state store in a folder."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI
from websockets.asyncio.client import ClientConnection

from serve.keys.key import Limits, new_key
from serve.keys.keystore import revoke_key, write_key
from serve.routes.app import build
from serve.routes.context import ApiSettings, Context
from tests.serve.following_streams import FollowingStreams
from tests.serve.memory_jobs import MemoryJobs
from tests.serve.memory_sessions import MemorySessions
from tests.serve.served import MODEL, WordAnswers


@dataclass(frozen=True)
class Key:
    """A key as its holder has it."""

    id: str
    text: str

    @property
    def headers(self) -> dict[str, str]:
        """What a request sends."""
        return {"Authorization": f"Bearer {self.text}"}


class Keyed:
    """One after the other of ``app()`` is a gateway that was restarted.

    Args:
        settings: of the API, beside that keys are needed.
    """

    def __init__(self, store: Path, **settings: Any) -> None:
        self.store = store
        self.sessions = MemorySessions()
        self._streams, self._jobs = FollowingStreams(self.sessions), MemoryJobs()
        self._settings = settings

    def app(self, keys: bool = True) -> FastAPI:
        """The API on what there is."""
        return build(
            Context(
                self.sessions,
                WordAnswers(),
                MODEL,
                str(self.store),
                ApiSettings(allow_private_urls=True, keys=keys, **self._settings),
                self._streams,
                self._jobs,
            )
        )

    def key(
        self,
        sessions: int | None = None,
        frames_per_second: float | None = None,
        jobs: int | None = None,
        upload_bytes: int | None = None,
    ) -> Key:
        """A new one."""
        limits = Limits(sessions, frames_per_second, jobs, upload_bytes)
        made, text = new_key("tests", limits)
        write_key(str(self.store), made)
        return Key(made.id, text)

    def revoke(self, key: Key) -> None:
        """As ``longreel keys revoke`` does."""
        revoke_key(str(self.store), key.id)


async def opened(http: httpx.AsyncClient, key: Key, **wanted: Any) -> str:
    """The id of a new session of ``key``."""
    answer = await http.post("/v1/sessions", json=wanted, headers=key.headers)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def until_type(socket: ClientConnection, begins: str, count: int) -> list[dict[str, Any]]:
    """So many messages whose type begins so."""
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(20):
        while len(found) < count:
            told = json.loads(await socket.recv())
            if told["type"].startswith(begins) and told["type"] != "frame.seen":
                found.append(told)
    return found
