"""The Jobs API before there is a cluster: which address, and what answers there."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from longreel.errors import LongreelError, UsageError
from pipelines import submission
from pipelines.submission import DEFAULT_ADDRESS, Jobs, jobs_address

HTTP = "http://head:8265"


@pytest.mark.parametrize(
    ("given", "api_server", "ray_address", "wanted"),
    [
        (None, "", "", DEFAULT_ADDRESS),
        (None, "", "auto", DEFAULT_ADDRESS),
        (None, "", "head:6379", DEFAULT_ADDRESS),
        (None, "", "ray://head:10001", DEFAULT_ADDRESS),
        (None, "", HTTP, HTTP),
        (None, "https://api:1/", HTTP, "https://api:1"),
        (f"{HTTP}/", "https://api:1", "http://other", HTTP),
    ],
)
def test_which_address(
    given: str | None,
    api_server: str,
    ray_address: str,
    wanted: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Guards against a job sent to another cluster than the one that was named."""
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", api_server)
    monkeypatch.setenv("RAY_ADDRESS", ray_address)
    assert jobs_address(given) == wanted


@pytest.mark.parametrize(
    "address", ["auto", "head:8265", "ray://head:10001", "http://", "http://h:x"]
)
def test_an_address_of_something_else(address: str) -> None:
    """Guards against waiting for a port that speaks another protocol."""
    with pytest.raises(UsageError, match="http://host:8265"):
        jobs_address(address)


@pytest.fixture
def silent() -> Iterator[str]:
    """Something that accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def website() -> Iterator[str]:
    """A web server that is no Ray."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>welcome</html>")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_nothing_there() -> None:
    """Guards against a traceback, or a wait, for a cluster that is down."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
    before = time.monotonic()
    with pytest.raises(LongreelError, match=f"no Ray cluster at {address}") as refused:
        Jobs(address)
    assert "\n" not in str(refused.value)
    assert time.monotonic() - before < 10


def test_no_answer(silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a command that waits for ever."""
    monkeypatch.setattr(submission, "_ANSWER_WITHIN_S", 0.3)
    with pytest.raises(LongreelError, match=f"no Ray cluster at {silent}: timed out"):
        Jobs(silent)


def test_another_server(website: str) -> None:
    """Guards against jobs sent to whatever answers."""
    with pytest.raises(LongreelError, match="no Ray Jobs API"):
        Jobs(website)


def test_a_password_in_the_address_is_not_said() -> None:
    """Guards against a password in a message."""
    with pytest.raises(LongreelError) as refused:
        Jobs("http://me:hush@127.0.0.1:9")
    assert "hush" not in str(refused.value)
