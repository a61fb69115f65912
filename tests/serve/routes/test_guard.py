"""Who is let in: what is open, what is said, and what happens when a key is revoked."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from serve.keys.ring import KeyRing
from serve.routes import guard
from tests.serve.keyed import Keyed, opened, until_type
from tests.serve.routes_server import client, picture, served

pytestmark = pytest.mark.anyio
JPEG = {"Content-Type": "image/jpeg"}


# Revoked.


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seconds are a tenth of one."""
    monkeypatch.setattr(guard, "FRESH_S", 0.1)
    monkeypatch.setattr("serve.keys.ring.FRESH_S", 0.1)


@pytest.mark.slow
@pytest.mark.usefixtures("hasty")
async def test_a_revoked_key_ends_what_is_open(keyed: Keyed, caplog: Any) -> None:
    """Guards against a listener who hears on for days after the key was taken away."""
    key, stays = keyed.key(), keyed.key()
    async with (
        served(keyed.app()) as address,
        httpx.AsyncClient(base_url=f"http://{address}", timeout=20) as http,
    ):
        session = await opened(http, key)
        url = f"ws://{address}/v1/sessions/new/stream"
        async with (
            connect(url, additional_headers=stays.headers) as other,
            connect(url, additional_headers=key.headers) as socket,
            http.stream("GET", f"/v1/sessions/{session}/events", headers=key.headers) as events,
        ):
            assert events.status_code == 200
            assert json.loads(await socket.recv())["type"] == "session.created"
            await asyncio.sleep(0.3)
            keyed.revoke(key)
            async with asyncio.timeout(30):
                told = [line async for line in events.aiter_lines()]
                assert told[0] == ": open"
                with suppress(ConnectionClosed):
                    async for _ in socket:
                        pass
            assert socket.close_code == guard.REVOKED
            assert (await http.get("/v1/sessions", headers=key.headers)).status_code == 401
            await other.send('{"type": "ping"}')
            assert (await until_type(other, "pong", 1))[0]
        assert not [t for t in asyncio.all_tasks() if t.get_name() == f"key-{key.id}"]
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR], "an end is no failure"


@pytest.mark.slow
@pytest.mark.usefixtures("hasty")
async def test_a_request_that_waits_when_its_key_is_revoked(keyed: Keyed) -> None:
    """Guards against a waiting call that is answered after its key was taken away."""
    key = keyed.key()
    keyed.sessions.step_s = 60
    async with client(keyed.app()) as http:
        session = await opened(http, key)
        waiting = asyncio.create_task(
            http.post(
                f"/v1/sessions/{session}/frames",
                content=picture(9),
                headers={**key.headers, **JPEG},
            )
        )
        await asyncio.sleep(0.3)
        keyed.revoke(key)
        async with asyncio.timeout(30):
            answer = await waiting
        assert answer.status_code == 401
        assert "revoked" in answer.json()["error"]["message"]


async def test_a_cancelled_request_is_not_taken_for_a_revoked_key(keyed: Keyed) -> None:
    """Guards against a server that cannot end requests any more."""

    async def hangs(*_: Any) -> None:
        await asyncio.sleep(60)

    key = keyed.key()
    guarded = guard.Guard(hangs, KeyRing(str(keyed.store)))
    scope = {
        "type": "http",
        "path": "/v1/sessions",
        "headers": [(b"authorization", f"Bearer {key.text}".encode())],
    }
    task = asyncio.create_task(guarded(scope, hangs, hangs))  # type: ignore[arg-type]
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# What is open, and what is said.


async def test_metrics_are_open_unless_they_are_not(tmp_path: Path) -> None:
    """Guards against a Prometheus that is locked out, and a setting that locks nothing."""
    for metrics_key in (False, True):
        keyed = Keyed(tmp_path, metrics_key=metrics_key)
        key = keyed.key()
        async with client(keyed.app()) as http:
            without = (await http.get("/metrics")).status_code
            assert (without == 401) == metrics_key
            assert (await http.get("/metrics", headers=key.headers)).status_code != 401
            assert (await http.get("/metricsx")).status_code == 401


@pytest.mark.slow
async def test_no_key_is_ever_said(keyed: Keyed, caplog: Any, capfd: Any) -> None:
    """Guards against keys in logs, replies and error texts."""
    caplog.set_level(logging.DEBUG)
    key = keyed.key(sessions=1)
    secret = key.text.rpartition(f"{key.id}-")[2]
    said = []
    async with (
        served(keyed.app()) as address,
        httpx.AsyncClient(base_url=f"http://{address}") as http,
    ):
        for headers in (key.headers, {"Authorization": f"Bearer {key.text}x"}):
            for path in ("/v1/sessions", "/v1/sessions/none", "/v1/nowhere"):
                said.append((await http.get(path, headers=headers)).text)
        protocols = [Subprotocol("longreel"), Subprotocol(f"longreel-key.{key.text}")]
        async with connect(
            f"ws://{address}/v1/sessions/new/stream",
            subprotocols=protocols,
        ) as socket:
            said.append(str(await socket.recv()))
    said.append((keyed.store / "keys" / f"{key.id}.json").read_text())
    out, err = capfd.readouterr()
    ours = [r.getMessage() for r in caplog.records if not r.name.startswith("websockets")]
    assert secret not in "".join([*said, *ours, out, err])


@pytest.mark.slow
async def test_the_page_says_that_keys_are_needed(keyed: Keyed) -> None:
    """Guards against an API page that promises answers without a key."""
    needed: list[dict[str, list[str]]] = [{"key": []}]
    for keys, wanted in ((True, needed), (False, [{}, *needed])):
        schema = keyed.app(keys).openapi()
        assert schema["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
        for path, methods in schema["paths"].items():
            for operation in methods.values():
                if path in ("/healthz", "/readyz", "/metrics"):
                    assert "security" not in operation
                else:
                    assert operation["security"] == wanted
                    assert {"401", "429"} <= set(operation["responses"])


@pytest.mark.slow
async def test_a_store_that_cannot_be_read_says_so(keyed: Keyed) -> None:
    """Guards against a key that is called wrong when nobody can tell."""
    key = keyed.key()
    app = keyed.app()
    (keyed.store / "keys").rename(keyed.store / "away")
    (keyed.store / "keys").write_text("not a folder")
    async with client(app) as http:
        answer = await http.get("/v1/sessions", headers=key.headers)
        assert answer.status_code == 503, answer.text
        assert answer.json()["error"]["code"] == "unavailable"
        assert (await http.get("/healthz")).status_code == 200
