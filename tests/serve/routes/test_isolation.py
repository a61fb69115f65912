"""Every route with no key, a wrong one, and another's: nothing of one key is there for the next.

The routes are those that the application has, so one that is added later is tried as well.

Guards against a route that shows, changes or counts what belongs to another key.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from serve.routes.owned import LEFT_S
from tests.serve.keyed import Key, Keyed
from tests.serve.routes_server import client, picture, served

pytestmark = pytest.mark.anyio
#: Routes that need no key, and why: they tell nothing of any client.
OPEN = {
    "/",
    "/console/",
    "/console/{name}",
    "/docs",
    "/docs/oauth2-redirect",
    "/healthz",
    "/metrics",
    "/openapi.json",
    "/readyz",
    "/redoc",
}
#: And those that tell every key the same: of the service itself, in names and numbers.
TOLD_TO_ALL = {"/v1/models", "/v1/cluster"}
WRONG = "lr-0123456789ab-" + "a" * 43
UNKNOWN = {
    "session": "nobodys",
    "response": "resp-nobodys-1",
    "file": "file-" + "0" * 32,
    "stream": "nobodys",
    "job": "nobodys",
    "frame": "0",
}
#: What a request needs for its body to be taken, by method and the path's end.
BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/frames"): {"content": picture(200), "headers": {"Content-Type": "image/jpeg"}},
    ("POST", "/responses"): {"json": {"input": "Why?"}},
}
#: What makes one of each kind, and what lists them.
MADE: dict[str, tuple[str, dict[str, Any]]] = {
    "session": ("/v1/sessions", {"json": {}}),
    "file": ("/v1/files", {"files": {"file": ("a.jpg", picture(9))}, "data": {"purpose": "x"}}),
    "stream": ("/v1/streams", {"json": {"url": "http://127.0.0.1:9/none.mp4"}}),
    "job": ("/v1/jobs", {"json": {"sources": ["/videos/"], "output": "/rows"}}),
}


@dataclass(frozen=True)
class Two:
    """A service, and two of its clients."""

    keyed: Keyed
    app: FastAPI
    hers: Key
    his: Key


@pytest.fixture
def two(tmp_path: Path) -> Two:
    keyed = Keyed(tmp_path)
    return Two(keyed, keyed.app(), keyed.key(), keyed.key())


def operations(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Method and path of everything that the API's page lists."""
    for path, methods in app.openapi()["paths"].items():
        for method in methods:
            yield method.upper(), path


def all_paths(routes: Iterable[Any]) -> Iterator[str]:
    """Of whatever answers, sockets and what no page lists among it."""
    for route in routes:
        included = getattr(route, "original_router", None)
        if included is not None:
            yield from all_paths(included.routes)
        else:
            yield route.path


#: Of routes that need one, or act otherwise with one.
QUERIES: dict[str, list[dict[str, str]]] = {
    "frames": [{}, {"wait": "false"}],
    "kept": [{"frame": "0"}],
}


def parameters(path: str) -> list[str]:
    return [part[1:-1] for part in path.split("/") if part.startswith("{")]


def body(method: str, path: str) -> dict[str, Any]:
    found = [b for (m, end), b in BODIES.items() if m == method and path.endswith(end)]
    return found[0] if found else {}


async def made(http: httpx.AsyncClient, kind: str, key: Key) -> str:
    """The id of a new one of ``kind``."""
    path, request = MADE[kind]
    answer = await http.post(path, **request, headers=key.headers)
    assert answer.status_code in (200, 201), answer.text
    return str(answer.json()["id"])


@pytest.mark.slow
async def test_nothing_is_there_without_a_key(two: Two) -> None:
    """Guards against a route that is added and forgets to ask."""
    paths = set(all_paths(two.app.routes))
    assert {"/v1/sessions", "/v1/sessions/{session}/stream", "/docs"} <= paths
    async with client(two.app) as http:
        for path in sorted(paths - OPEN):
            for method in ("GET", "POST", "DELETE", "PUT", "OPTIONS", "HEAD"):
                for headers in (
                    {},
                    {"Authorization": f"Bearer {WRONG}"},
                    {"Authorization": f"Basic {two.hers.text}"},
                    {"Authorization": two.hers.text},
                    {"Authorization": f"Bearer {two.hers.text[:-1]}"},
                    {"X-Api-Key": two.hers.text},
                ):
                    answer = await http.request(method, path, headers=headers)
                    assert answer.status_code == 401, (method, path, headers)
                    assert answer.headers["www-authenticate"] == "Bearer"
                    if method != "HEAD":
                        error = answer.json()["error"]
                        assert error["code"] == "invalid_api_key"
                        assert error["type"] == "invalid_request_error"
                        assert two.hers.text[:-1] not in answer.text
        for trick in ("/v1/../healthz", "/healthz/../v1/sessions", "//healthz", "/console/../v1"):
            assert (await http.get(f"http://test{trick}")).status_code in (200, 401, 404)
        assert (await http.get("/v1/sessions?api_key=" + two.hers.text)).status_code == 401


async def test_what_tells_nothing_of_clients_is_open(two: Two) -> None:
    """Guards against probes and pages that a key locks out."""
    async with client(two.app) as http:
        for path in ("/healthz", "/readyz", "/docs", "/openapi.json"):
            assert (await http.get(path)).status_code == 200, path


@pytest.mark.slow
async def test_every_route_hides_what_is_anothers(two: Two) -> None:
    """Guards against any read or change across keys, and against a reply that tells it exists."""
    tried = set()
    async with client(two.app) as http:
        for method, path in operations(two.app):
            names = parameters(path)
            if not names or path in OPEN or names == ["model"]:
                continue
            kind = names[0]
            assert kind in MADE, f"{method} {path}: say here what makes a {kind}"
            hers = {**UNKNOWN, kind: await made(http, kind, two.hers)}
            queries = QUERIES.get(path.rpartition("/")[2], [{}])
            for query in queries:
                sent = body(method, path)
                headers = {**sent.get("headers", {}), **two.his.headers}
                rest = {name: value for name, value in sent.items() if name != "headers"}
                found, unknown = [
                    await http.request(
                        method, path.format(**ids), params=query, headers=headers, **rest
                    )
                    for ids in (hers, UNKNOWN)
                ]
                assert found.status_code == unknown.status_code == 404, (method, path, found.text)
                assert found.text == unknown.text.replace(UNKNOWN[kind], hers[kind])
            # The same request is hers to make: it was the key that made the difference.
            headers = {**headers, **two.hers.headers}
            # Of a stream of events only the head comes before its session ends.
            if path.endswith("/events"):
                ended = await http.delete(f"/v1/sessions/{hers[kind]}", headers=two.hers.headers)
                assert ended.status_code == 200
            mine = await http.request(method, path.format(**hers), headers=headers, **rest)
            assert mine.status_code < 300 or mine.text != found.text, (method, path, mine.text)
            tried.add((method, path))
    assert len(tried) >= 14


async def test_lists_hold_what_is_ones_own(two: Two) -> None:
    async with client(two.app) as http:
        for kind, (path, _) in MADE.items():
            hers = await made(http, kind, two.hers)
            assert (await http.get(path, headers=two.his.headers)).json()["data"] == []
            (only,) = (await http.get(path, headers=two.hers.headers)).json()["data"]
            assert only["id"] == hers
            assert "owner" not in only
            assert two.hers.id not in json.dumps(only)
            if kind == "session":
                await http.delete(f"{path}/{hers}", headers=two.hers.headers)
        for method, path in operations(two.app):
            if method == "GET" and not parameters(path) and path not in OPEN | TOLD_TO_ALL:
                answer = await http.get(path, headers=two.his.headers)
                assert answer.json()["data"] == [], f"{path} lists what is another's"


async def test_a_file_of_another_is_in_no_chat(two: Two) -> None:
    """Guards against a file that is read through the model."""
    async with client(two.app) as http:
        file = await made(http, "file", two.hers)
        for part in (
            {"type": "file", "file": {"file_id": file}},
            {"type": "image_url", "image_url": {"url": file}},
        ):
            chat = {
                "model": "foretold",
                "messages": [{"role": "user", "content": [part, {"type": "text", "text": "?"}]}],
            }
            his = await http.post("/v1/chat/completions", json=chat, headers=two.his.headers)
            assert his.status_code == 404, his.text
            assert his.json()["error"]["code"] == "file_not_found"
            hers = await http.post("/v1/chat/completions", json=chat, headers=two.hers.headers)
            assert hers.status_code == 200, hers.text
        assert (await http.get("/v1/sessions", headers=two.hers.headers)).json()["data"] == []


async def test_a_name_that_is_taken_is_refused_and_tells_no_more(two: Two) -> None:
    """Guards against a session that another key takes over, and one that follows under its name."""
    async with client(two.app) as http:
        opened = await http.post(
            "/v1/sessions", json={"id": "door", "instructions": "hush"}, headers=two.hers.headers
        )
        assert opened.status_code == 201
        for asked in ({"id": "door"}, {"id": "door", "fps": 3}):
            taken = await http.post("/v1/sessions", json=asked, headers=two.his.headers)
            assert taken.status_code == 400
            assert taken.json()["error"]["message"] == "there is a session 'door' already"
        await http.delete("/v1/sessions/door", headers=two.hers.headers)
        two.keyed.sessions.forget("door")
        # Her calls may be on their way to it still.
        soon = await http.post("/v1/sessions", json={"id": "door"}, headers=two.his.headers)
        assert soon.json()["error"]["message"] == "there is a session 'door' already"
        again = await http.post("/v1/sessions", json={"id": "door"}, headers=two.hers.headers)
        assert again.status_code == 201


async def test_a_name_that_is_left_twice_is_its_keys_for_the_whole_time(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards calls on the second of two sessions, which may be on their way still, against another
    key's under its name: the time of the first ends in theirs."""
    loop = asyncio.get_running_loop()
    now = loop.time()
    monkeypatch.setattr(loop, "time", lambda: now)
    async with client(two.app) as http:
        for _ in range(2):
            hers = await http.post("/v1/sessions", json={"id": "door"}, headers=two.hers.headers)
            assert hers.status_code == 201
            await http.delete("/v1/sessions/door", headers=two.hers.headers)
            two.keyed.sessions.forget("door")
            now += 0.6 * LEFT_S
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        soon = await http.post("/v1/sessions", json={"id": "door"}, headers=two.his.headers)
        assert soon.status_code == 400
        now += 0.6 * LEFT_S
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        his = await http.post("/v1/sessions", json={"id": "door"}, headers=two.his.headers)
        assert his.status_code == 201, his.text


async def test_owners_outlive_the_gateway(two: Two) -> None:
    """Guards against owners that are kept in memory, and objects that a restart gives away."""
    async with client(two.app) as http:
        ids = {kind: await made(http, kind, two.hers) for kind in MADE}
    async with client(two.keyed.app()) as http:
        for kind, (path, _) in MADE.items():
            there = f"{path}/{ids[kind]}"
            assert (await http.get(there, headers=two.his.headers)).status_code == 404
            assert (await http.get(there, headers=two.hers.headers)).status_code == 200


@pytest.mark.slow
async def test_with_keys_off_all_is_everybodys_and_what_is_made_then_is_no_keys(two: Two) -> None:
    async with client(two.app) as http:
        ids = {kind: await made(http, kind, two.hers) for kind in MADE}
    nobodys = {}
    async with client(two.keyed.app(keys=False)) as http:
        for kind, (path, request) in MADE.items():
            assert (await http.get(f"{path}/{ids[kind]}")).status_code == 200
            nobodys[kind] = (await http.post(path, **request)).json()["id"]
            # A key that is not needed does no harm, as that of a client that always sends one.
            assert (await http.get(path, headers={"Authorization": "Bearer x"})).status_code == 200
    async with client(two.keyed.app()) as http:
        for kind, (path, _) in MADE.items():
            for key in (two.hers, two.his):
                missing = await http.get(f"{path}/{nobodys[kind]}", headers=key.headers)
                assert missing.status_code == 404


# WebSockets.


async def said(socket: ClientConnection) -> tuple[list[dict[str, Any]], int | None]:
    """All that comes until the end, and the close code."""
    found = []
    try:
        while True:
            found.append(json.loads(await asyncio.wait_for(socket.recv(), 10)))
    except ConnectionClosed:
        return found, socket.close_code


@pytest.mark.slow
async def test_a_socket_needs_a_key(two: Two) -> None:
    async with served(two.app) as address:
        url = f"ws://{address}/v1/sessions/new/stream"
        bad = [Subprotocol("longreel"), Subprotocol(f"longreel-key.{WRONG}")]
        for headers, protocols in (
            ({}, None),
            ({"Authorization": f"Bearer {WRONG}"}, None),
            ({}, bad),
            ({}, [Subprotocol("longreel")]),
        ):
            with pytest.raises(InvalidStatus) as refused:
                await connect(url, additional_headers=headers, subprotocols=protocols)
            assert refused.value.response.status_code == 401
            assert json.loads(refused.value.response.body)["error"]["code"] == "invalid_api_key"
            assert refused.value.response.headers["WWW-Authenticate"] == "Bearer"
        async with connect(url, additional_headers=two.hers.headers) as socket:
            assert json.loads(await socket.recv())["type"] == "session.created"
            assert socket.subprotocol is None
        good = [Subprotocol("longreel"), Subprotocol(f"longreel-key.{two.hers.text}")]
        async with connect(url, subprotocols=good) as socket:
            assert json.loads(await socket.recv())["type"] == "session.created"
            assert socket.subprotocol == "longreel", "the key is not said again"


async def test_a_socket_to_anothers_session(two: Two) -> None:
    async with served(two.app) as address, client(two.app) as http:
        session = await made(http, "session", two.hers)
        answers = []
        for name in (session, "nobodys"):
            async with connect(
                f"ws://{address}/v1/sessions/{name}/stream", additional_headers=two.his.headers
            ) as socket:
                told, code = await said(socket)
                assert code == 4404
                answers.append(json.dumps(told).replace(name, "X"))
        assert answers[0] == answers[1]
        async with connect(
            f"ws://{address}/v1/sessions/{session}/stream", additional_headers=two.hers.headers
        ) as socket:
            assert json.loads(await socket.recv())["session"]["id"] == session
