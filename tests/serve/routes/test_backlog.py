"""Clients that send more than anybody reads, to Ray Serve's own way of receiving."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from ray.serve._private.http_util import ASGIReceiveProxy

from serve.routes import backlog
from serve.routes.backlog import TOO_FAST
from tests.serve.memory_sessions import MemorySessions
from tests.serve.routes_server import application, client, until

_MESSAGE = {"type": "websocket.receive", "bytes": bytes(2**20)}
_PART = {"type": "http.request", "body": bytes(2**20), "more_body": True}


class Flood:
    """A proxy whose client sends ``first``, and then ``then`` as often as it is fetched."""

    def __init__(self, first: list[Any], then: Any) -> None:
        self.fetched = 0
        self._first, self._then = first, then

    async def fetch(self, _: Any) -> bytes:
        """As the proxy's actor answers."""
        self.fetched += 1
        await asyncio.sleep(0)
        if self._first:
            return pickle.dumps([self._first.pop(0)])
        return pickle.dumps([self._then])


async def _call(app: Any, scope: dict[str, Any], flood: Flood) -> list[Any]:
    """What the application says; it is called as Ray Serve's replicas do."""
    scope = {"headers": [], "query_string": b"", "http_version": "1.1", "client": None,
             "server": ("test", 80), "scheme": "http", "root_path": "", **scope}  # fmt: skip
    receive = ASGIReceiveProxy(scope, None, flood.fetch)
    fetching = asyncio.create_task(receive.fetch_until_disconnect())
    said: list[Any] = []

    async def send(message: Any) -> None:
        said.append(message)

    try:
        async with asyncio.timeout(20):
            await app(scope, receive, send)
    finally:
        fetching.cancel()
    return said


def _run(scenario: Callable[[], Any]) -> Any:
    return asyncio.run(scenario())


@pytest.mark.slow
def test_a_socket_that_floods_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the gateway's memory: Ray Serve fetches whatever comes, read or not."""
    monkeypatch.setattr(backlog, "MOST_SOCKET_BYTES", 8 * 2**20)

    async def scenario() -> None:
        sessions = MemorySessions(step_s=10.0)
        app = application(sessions)
        async with client(app) as http:
            await http.post("/v1/sessions", json={"id": "watched"})
        for then in (_MESSAGE, {"type": "websocket.receive", "text": '{"type": "ping"}'}):
            flood = Flood([{"type": "websocket.connect"}], then)
            scope = {"type": "websocket", "path": "/v1/sessions/watched/stream",
                     "raw_path": b"/v1/sessions/watched/stream", "subprotocols": []}  # fmt: skip
            said = await _call(app, scope, flood)
            assert said[-1]["type"] == "websocket.close"
            assert said[-1]["code"] == TOO_FAST
            # Bytes, and messages that have hardly any.
            assert flood.fetched < 10_000
            pongs = [s for s in said if s.get("text") == '{"type": "pong"}']
            assert len(pongs) < 500
            await until(lambda: not app.state.connections.open)

    _run(scenario)


def test_a_body_that_nobody_reads_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the gateway's memory against bodies that come while something else is waited for."""
    monkeypatch.setattr(backlog, "MOST_SOCKET_BYTES", 2**20)

    async def scenario() -> None:
        sessions = MemorySessions()
        app = application(sessions, max_upload_bytes=4 * 2**20)
        async with client(app) as http:
            await http.post("/v1/sessions", json={"id": "watched"})
        wait = asyncio.Event()

        async def never(session: str) -> Any:
            await wait.wait()

        monkeypatch.setattr(sessions, "view", never)
        path = "/v1/sessions/watched/frames"
        scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(),
                 "headers": [(b"content-type", b"video/mp4")]}  # fmt: skip
        flood = Flood([], _PART)
        said = await _call(app, scope, flood)
        assert said[0]["status"] == 413
        assert flood.fetched < 10

    _run(scenario)


@pytest.mark.slow
def test_bodies_at_once_are_bounded_together() -> None:
    """Guards the gateway's memory against many large uploads at a time."""

    async def scenario() -> None:
        app = application(MemorySessions(), max_upload_bytes=1000)

        async def slow(parts: int, go_on: asyncio.Event) -> Any:
            for _ in range(parts):
                yield bytes(900)
            await go_on.wait()

        async with client(app) as http:
            await http.post("/v1/sessions", json={"id": "watched"})
            go_on = asyncio.Event()
            path, headers = "/v1/sessions/watched/frames", {"content-type": "image/jpeg"}
            held = [
                asyncio.create_task(http.post(path, content=slow(1, go_on), headers=headers))
                for _ in range(4)
            ]
            await asyncio.sleep(0.2)
            more = await http.post(path, content=bytes(900), headers=headers)
            assert more.status_code == 429
            assert more.json()["error"]["code"] == "overloaded"
            go_on.set()
            assert {reply.status_code for reply in await asyncio.gather(*held)} == {415}
            # What they held is free again.
            assert (await http.post(path, content=bytes(900), headers=headers)).status_code == 415

    _run(scenario)
