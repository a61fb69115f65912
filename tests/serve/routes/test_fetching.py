"""URLs that clients send: what is fetched, and that nothing inside the network ever is.

Guards against a URL that reaches the service's own network, or fills its disk.
"""

from __future__ import annotations

import asyncio
import base64
import threading
import tracemalloc
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

import pytest

from actors.objects import read_bytes, write_bytes
from infra.objectstore import ObjectStore
from serve import addresses
from serve.addresses import is_public
from serve.live.items import SessionError
from serve.routes import fetching
from serve.routes.context import ApiSettings, Context
from serve.routes.fetching import fetched
from serve.routes.filestore import save_file
from tests.serve.memory_sessions import MemorySessions
from tests.serve.served import MODEL, WordAnswers

BODY = bytes(range(256)) * 40


class _Site(BaseHTTPRequestHandler):
    """``/file``, ``/to?<url>`` redirects, ``/loop``, ``/slow``, ``/endless``, ``/claims``."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, str]]

    def do_GET(self) -> None:
        self.seen.append((self.path, self.headers["Host"]))
        if self.path.startswith("/to?"):
            self._answer(302, b"", Location=unquote(self.path[4:]))
        elif self.path == "/loop":
            self._answer(301, b"", Location="/loop")
        elif self.path == "/claims":
            self.send_response(200)
            self.send_header("Content-Length", str(10**12))
            self.end_headers()
        elif self.path == "/endless":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            try:
                while True:
                    self.wfile.write(b"1000\r\n" + bytes(4096) + b"\r\n")
            except OSError:
                self.close_connection = True
        elif self.path == "/slow":
            threading.Event().wait(5)
            self._answer(200, b"late")
        else:
            self._answer(200 if self.path == "/file" else 404, BODY)

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


class Site:
    """A web site on loopback, and what was asked of it."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        handler = type("Handler", (_Site,), {"seen": self.seen})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"


@pytest.fixture
def site() -> Iterator[Site]:
    running = Site()
    yield running
    running.server.shutdown()
    running.server.server_close()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[str]]]:
    """Addresses by name; each look-up takes the next answer, the last one stays."""
    known: dict[str, list[list[str]]] = {}
    system = addresses.resolve

    async def resolve(host: str, port: int) -> list[str]:
        if host not in known:
            return await system(host, port)
        return known[host].pop(0) if len(known[host]) > 1 else known[host][0]

    monkeypatch.setattr(addresses, "resolve", resolve)
    return known


def context(store: Path, **settings: Any) -> Context:
    return Context(MemorySessions(), WordAnswers(), MODEL, str(store), ApiSettings(**settings))


def fetch(url: str, store: Path, **settings: Any) -> bytes:
    async def run() -> bytes:
        async with fetched(url, context(store, **settings)) as uri:
            return read_bytes(uri)

    return asyncio.run(run())


def refused(url: str, store: Path, **settings: Any) -> SessionError:
    with pytest.raises(SessionError) as caught:
        fetch(url, store, **settings)
    return caught.value


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1",
        "169.254.169.254", "100.64.0.1", "192.0.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1",
        "239.255.255.250", "240.0.0.1", "255.255.255.255", "::", "::1", "fe80::1", "fe80::1%eth0",
        "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "::ffff:127.0.0.1",
        "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::",
        "2002:a00:1::1", "2001:0:4136:e378:8000:63bf:80ff:fffe", "2001:db8::1", "::127.0.0.1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(address: str) -> None:
    """Guards against requests to the service's own network in any range or spelling."""
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111"])
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0", "2130706433", "0x7f000001",
     "017700000001", "127.1", "0.0.0.0", "user:password@127.0.0.1"],
)  # fmt: skip
def test_loopback_is_refused_in_any_spelling(host: str, site: Site, tmp_path: Path) -> None:
    """Guards against spellings of 127.0.0.1 that a text comparison would let pass."""
    error = refused(site.url("/file", host), tmp_path)
    # Some systems know none of the unusual spellings.
    assert error.code == "url_not_allowed" or "cannot be resolved" in error.message
    assert error.code == "url_not_allowed" or not host.startswith(("127.0.0.1", "[", "local"))
    assert "password" not in error.message
    assert site.seen == []


@pytest.mark.parametrize("start", ["s3://x/", "https://example.org/", "HTTP://", "file-", ""])
def test_a_url_of_any_length_costs_nothing(start: str, tmp_path: Path) -> None:
    """Guards against the memory of one chat's body many times over, and seconds for everybody."""
    url = start + "a/" * 2_000_000
    tracemalloc.start()
    error = refused(url, tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (error.code, len(error.message) < 200) == ("url_not_allowed", True)
    assert peak < 2**20


def test_a_name_for_a_private_address_is_refused(
    names: dict[str, list[list[str]]], site: Site, tmp_path: Path
) -> None:
    """Guards against a public name whose owner points it inside, also beside a public address."""
    names["inside.example"] = [["10.0.0.5"]]
    names["mixed.example"] = [["93.184.216.34", "127.0.0.1"]]
    for host in names:
        assert refused(site.url("/file", host), tmp_path).code == "url_not_allowed"
    assert site.seen == []


def test_the_checked_address_is_the_one_connected_to(
    names: dict[str, list[list[str]]], site: Site, tmp_path: Path
) -> None:
    """Guards against a name that changes its address between the check and the connection."""
    names["turns.example"] = [["127.0.0.1"], ["127.0.0.9"]]
    assert fetch(site.url("/file", "turns.example"), tmp_path, allow_private_urls=True) == BODY
    # One look-up, and the name went along: virtual hosts work.
    assert len(names["turns.example"]) == 1
    assert site.seen == [("/file", f"turns.example:{site.port}")]


def test_redirects_are_checked_like_the_first_address(
    names: dict[str, list[list[str]]],
    site: Site,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Guards against a public page that sends the service to its own loopback or metadata."""
    # This one address stands for the public internet.
    monkeypatch.setattr(
        addresses, "is_public", lambda address: address == "127.0.0.1" or is_public(address)
    )
    names["outside.example"] = [["127.0.0.1"]]
    for target in (
        f"http://127.0.0.2:{site.port}/file",
        f"http://[::1]:{site.port}/file",
        "http://169.254.169.254/latest/meta-data/",
        "file:///etc/passwd",
        "s3://bucket/key",
        "data:,x",
        "//127.0.0.3/x",
    ):
        error = refused(site.url(f"/to?{target}", "outside.example"), tmp_path)
        assert error.code == "url_not_allowed", target
    assert all(path.startswith("/to?") for path, _ in site.seen)
    assert fetch(site.url("/to?/file", "outside.example"), tmp_path) == BODY


def test_redirects_end(site: Site, tmp_path: Path) -> None:
    error = refused(site.url("/loop"), tmp_path, allow_private_urls=True)
    assert error.code == "url_unreachable"
    assert "redirects more than 5" in error.message
    assert len(site.seen) == 6


def test_other_schemes_are_refused(tmp_path: Path) -> None:
    """Guards the disk and other protocols, whatever the settings."""
    secret = tmp_path / "secret"
    secret.write_text("x")
    for url in (
        str(secret),
        f"file://{secret}",
        "ftp://a/b",
        "gopher://a",
        "",
        "http://",
        "file-1",
    ):
        error = refused(url, tmp_path, allow_private_urls=True)
        assert error.code == "url_not_allowed", url


@pytest.mark.parametrize("path", ["/claims", "/endless"])
def test_bytes_are_capped(path: str, site: Site, tmp_path: Path) -> None:
    """Guards the disk against files that are larger than they should be, said or not."""
    error = refused(site.url(path), tmp_path, allow_private_urls=True, max_upload_bytes=100_000)
    assert error.code == "media_too_large"


def test_time_is_capped(site: Site, tmp_path: Path) -> None:
    """Guards against a site that keeps a request waiting for ever."""
    error = refused(site.url("/slow"), tmp_path, allow_private_urls=True, fetch_timeout_s=0.3)
    assert error.code == "url_unreachable"
    assert "more than 0.3 s" in error.message


def test_what_is_not_there_is_said(site: Site, tmp_path: Path) -> None:
    error = refused(site.url("/none?token=secret"), tmp_path, allow_private_urls=True)
    assert error.code == "url_unreachable"
    assert "status 404" in error.message
    assert "secret" not in error.message
    gone = refused("http://no-such-name.invalid/", tmp_path, allow_private_urls=True)
    assert gone.code == "url_unreachable"


def test_data_urls(tmp_path: Path) -> None:
    url = "data:video/mp4;base64," + base64.b64encode(BODY).decode()
    assert fetch(url, tmp_path) == BODY
    assert fetch("data:,a%20b", tmp_path) == b"a b"
    assert refused(url, tmp_path, max_upload_bytes=5000).code == "media_too_large"
    for faulty in ("data:image/png;base64", "data:image/png;base64,@@@"):
        assert refused(faulty, tmp_path).code == "media_error"


def test_percent_encoding_is_taken_out_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the gateway's memory: the library makes some two hundred bytes of each %."""
    whole = "a%20%4%%zz%C3%BC" * 5 + "%"
    for size in range(3, 9):
        monkeypatch.setattr(fetching, "_SLICE", size)
        assert fetching._unquoted(whole) == unquote_to_bytes(whole)
    monkeypatch.setattr(fetching, "_SLICE", 2**8)
    body = "%" * 2**14
    tracemalloc.start()
    try:
        assert len(fetching._unquoted(body)) == len(body)
        assert tracemalloc.get_traced_memory()[1] < 5 * len(body)
    finally:
        tracemalloc.stop()


def test_uploaded_files_by_id(tmp_path: Path) -> None:
    """Guards against ids that lead out of the folder of files."""
    saved = save_file(str(tmp_path), BODY, "a.mp4", "vision")
    assert fetch(saved.id, tmp_path) == BODY
    assert refused("file-" + "0" * 32, tmp_path).code == "file_not_found"
    assert refused("file-../../etc/passwd", tmp_path).code == "url_not_allowed"


def test_the_state_store_is_not_fetched_from() -> None:
    """Guards other clients' files where the bucket itself is one that may be read."""
    for url in (
        "s3://b/state/files/x",
        "s3://b/state",
        "s3://b//state/files/x",
        "s3://b/a/../state",
    ):
        with pytest.raises(SessionError, match="its own state"):
            addresses.check_outside(url, "s3://b/state/")
    for url in ("s3://b/state2/x", "s3://c/state/x", "s3://b/"):
        addresses.check_outside(url, "s3://b/state/")


@pytest.mark.objectstore
def test_s3_from_allowed_buckets_alone(
    objectstore: ObjectStore, bucket: str, tmp_path: Path
) -> None:
    """Guards other buckets that the service's own credentials would open."""
    write_bytes(f"s3://{bucket}/a.bin", BODY)
    url = f"s3://{bucket}/a.bin"
    assert fetch(url, tmp_path, s3_buckets=[bucket]) == BODY
    assert refused(url, tmp_path).code == "url_not_allowed"
    assert refused(url, tmp_path, s3_buckets=["other"]).code == "url_not_allowed"
    assert refused("s3://", tmp_path, s3_buckets=[bucket]).code == "url_not_allowed"
    missing = refused(f"s3://{bucket}/none", tmp_path, s3_buckets=[bucket])
    assert missing.code == "url_unreachable"
