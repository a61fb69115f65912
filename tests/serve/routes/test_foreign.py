"""Pages of other sites, in a browser beside a service that asks for no key.

Guards against whoever is visited in a browser: it must not see, ask or start anything here.
"""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin

from longreel.options import asks_for_keys, is_local_only
from serve.routes.foreign import is_foreign
from tests.serve.keyed import Keyed
from tests.serve.memory_sessions import MemorySessions
from tests.serve.routes_server import application, served

HERE = ["127.0.0.1:8000", "localhost:9000", "[::1]:8000", "127.0.0.1", "LOCALHOST:8000"]
AWAY = [
    "evil.test:8000", "localhost.evil.test", "127.0.0.1.evil.test:8000", "localhost@evil.test",
    "192.168.1.7:8000", "0.0.0.0:8000", "[::1", "localhost:x@evil.test", "",
]  # fmt: skip


@pytest.mark.parametrize("host", HERE)
def test_who_is_here(host: str) -> None:
    """Guards against a service that its own console cannot use."""
    assert not is_foreign([(b"host", host.encode()), (b"origin", f"http://{host}".encode())])
    assert not is_foreign([(b"host", host.encode()), (b"user-agent", b"curl")])
    assert not is_foreign([])


@pytest.mark.parametrize("host", AWAY)
def test_who_is_not(host: str) -> None:
    assert is_foreign([(b"host", host.encode())])
    assert is_foreign([(b"host", b"127.0.0.1:8000"), (b"origin", f"http://{host}".encode())])
    assert is_foreign([(b"host", b"127.0.0.1:8000"), (b"host", host.encode())])


@pytest.mark.parametrize("origin", ["null", "file://", "chrome-extension://abc", "x"])
def test_pages_of_no_site(origin: str) -> None:
    """Guards against a page that hides where it is from, as in a sandboxed frame."""
    assert is_foreign([(b"host", b"127.0.0.1:8000"), (b"origin", origin.encode())])


@pytest.mark.anyio
async def test_neither_requests_nor_sockets_pass() -> None:
    """Guards the handshake too, for which a browser asks no leave of the service."""
    sessions = MemorySessions()
    async with (
        served(application(sessions, local_only=True)) as address,
        httpx.AsyncClient(base_url=f"http://{address}", timeout=20) as http,
    ):
        refused = await http.get("/v1/sessions", headers={"Host": "evil.test"})
        assert refused.status_code == 403
        assert refused.json()["error"]["code"] == "origin_not_allowed"
        assert "--keys" in refused.json()["error"]["message"]
        evil = {"Origin": "https://evil.test"}
        assert (await http.post("/v1/sessions", json={}, headers=evil)).status_code == 403
        url = f"ws://{address}/v1/sessions/new/stream"
        with pytest.raises(InvalidStatus, match="403"):
            async with connect(url, origin=Origin(evil["Origin"])):
                pass
        assert await sessions.list() == []
        own = {"Origin": f"http://{address}"}
        assert (await http.post("/v1/sessions", json={}, headers=own)).status_code == 201
        async with connect(url, origin=Origin(own["Origin"])) as socket:
            assert "session.created" in str(await socket.recv())


@pytest.mark.slow
@pytest.mark.anyio
async def test_a_key_is_enough(tmp_path: Path) -> None:
    """Guards a service behind a proxy, under a name and with pages of its own."""
    keyed = Keyed(tmp_path, local_only=True)
    key = keyed.key()
    async with served(keyed.app()) as address, httpx.AsyncClient(timeout=20) as http:
        named = {"Host": "video.example.org", "Origin": "https://example.org", **key.headers}
        assert (await http.get(f"http://{address}/v1/sessions", headers=named)).status_code == 200


@pytest.mark.parametrize(
    ("keys", "host", "local"),
    [
        (None, "127.0.0.1", True),
        (None, "localhost", True),
        (None, "0.0.0.0", False),
        ("off", "127.0.0.1", False),
        ("required", "127.0.0.1", False),
    ],
)
def test_where_it_holds(keys: str | None, host: str, local: bool) -> None:
    """Guards the default: on for whoever said nothing, off for who said that no key is needed."""
    assert is_local_only(keys, host) is local
    assert not (local and asks_for_keys(keys, host))
