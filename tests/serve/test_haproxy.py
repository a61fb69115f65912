"""The service behind HAProxy instead of Ray Serve's own proxy, as the images run it.

Guards against a proxy that keeps words back until they are whole, cuts sockets or bodies, answers
in another shape than the API's, or opens a service of this machine to others.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import websockets

from bench.serve_haproxy import behind_haproxy
from tests.serve.scripts import film, script
from tests.serve.survival import drive, live
from tests.serve.transcripts import REPLY_S

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with behind_haproxy(tmp_path_factory.mktemp("state")) as url:
        yield url


def test_sessions_are_told_what_happens_while_it_happens(address: str) -> None:
    """Guards event streams and streamed answers, which nothing may gather up."""

    async def run() -> None:
        async with live(address, ["one", "other"]) as sessions:
            for n, client in enumerate(sessions.clients):
                # Answers are waited for only once their first event has come.
                await drive(client, script(n, 10))
                assert client.repeats == []
            # Streams that have not ended.
            told = await sessions.transcripts()
            for events, follower in zip(told, sessions.followers, strict=True):
                kinds = {event.type for event in events}
                assert kinds >= {"frame.seen", "narration", "response.delta", "response.done"}
                assert follower.connections == 1
            await sessions.end()

    asyncio.run(run())


def test_a_socket_drives_a_session(address: str) -> None:
    async def run() -> None:
        async with httpx.AsyncClient(base_url=address, timeout=REPLY_S) as http:
            (await http.post("/v1/sessions", json={"id": "socket"})).raise_for_status()
            there = address.replace("http", "ws") + "/v1/sessions/socket/stream"
            async with websockets.connect(there, max_size=None) as stream:
                assert json.loads(await stream.recv())["type"] == "session.created"
                for n, picture in enumerate(film(1, 4)):
                    await stream.send(picture)
                    said = json.loads(await asyncio.wait_for(stream.recv(), REPLY_S))
                    while said["type"] not in ("frame.accepted", "error"):
                        said = json.loads(await asyncio.wait_for(stream.recv(), REPLY_S))
                    assert (said["type"], said["seq"]) == ("frame.accepted", n + 1), said
            assert (await http.delete("/v1/sessions/socket")).status_code == 200

    asyncio.run(run())


def test_answers_are_the_apis_own(address: str) -> None:
    """Guards clients that read an error's code, and whoever looks for a request in the logs."""
    with httpx.Client(base_url=address, timeout=REPLY_S) as http:
        lost = http.get("/v1/sessions/none", headers={"X-Request-Id": "mine-1"})
        assert (lost.status_code, lost.json()["error"]["code"]) == (404, "session_not_found")
        assert lost.headers.get_list("x-request-id") == ["mine-1"]
        assert len(http.get("/v1/models").headers.get_list("x-request-id")) == 1
        large = http.post("/v1/sessions", content=b" " * (2 * 2**20))
        assert (large.status_code, large.json()["error"]["code"]) == (413, "media_too_large")
        whole = bytes(range(256)) * 40_000
        files = {"file": ("a.bin", whole)}
        kept = http.post("/v1/files", data={"purpose": "user_data"}, files=files)
        assert (kept.status_code, kept.json()["bytes"]) == (200, len(whole)), kept.text
        there = f"/v1/files/{kept.json()['id']}"
        assert http.get(f"{there}/content").content == whole
        assert http.delete(there).status_code == 200


def test_a_service_of_this_machine_stays_its_own(address: str) -> None:
    """Guards a service without keys: nobody else reaches the API, at the proxy or behind it."""
    listening = list(_listening())
    port = httpx.URL(address).port
    inodes = {
        inode
        for process in Path("/proc").glob("[0-9]*")
        if _is_gateway(process)
        for inode in _sockets(process)
    }
    bound = {(host, at) for host, at, inode in listening if at == port or inode in inodes}
    # The process has a port for Ray's own calls besides, which is no more open than Ray is.
    served = {(host, at) for host, at in bound if _answers(at)}
    assert len(served) == 2, "the proxy, and the gateway behind it"
    assert {host for host, _ in served} == {"127.0.0.1"}


def _answers(port: int) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(f"http://127.0.0.1:{port}/v1/models", timeout=REPLY_S).status_code == 200
    return False


def _listening() -> Iterator[tuple[str, int, str]]:
    """Address, port and inode of each socket of this machine that takes connections."""
    for family, table in ((socket.AF_INET, "tcp"), (socket.AF_INET6, "tcp6")):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            host, port = local.split(":")
            if state == "0A":
                # Words of the machine's byte order.
                words = [bytes.fromhex(host[n : n + 8])[::-1] for n in range(0, len(host), 8)]
                yield socket.inet_ntop(family, b"".join(words)), int(port, 16), rest[5]


def _is_gateway(process: Path) -> bool:
    with suppress(OSError):
        return b"ServeReplica:longreel:gateway" in (process / "cmdline").read_bytes()
    return False


def _sockets(process: Path) -> set[str]:
    """Inodes of its sockets."""
    links = set()
    with suppress(OSError):
        for each in (process / "fd").iterdir():
            with suppress(OSError):
                links.add(os.readlink(each))
    return {link[8:-1] for link in links if link.startswith("socket:[")}
