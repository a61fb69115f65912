"""A text model behind an OpenAI-compatible endpoint: asked again when busy, refused in words.

Guards against a job that hangs on an endpoint, asks it in vain for ever, or tells its trouble in a
traceback.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from longreel.errors import LongreelError, UsageError
from pipelines import endpoint
from pipelines.endpoint import Endpoint, check_address, find_endpoint
from pipelines.reduce import Node

pytestmark = pytest.mark.waits

NODES = [Node(0.0, 30.0, "A cat."), Node(30.0, 61.5, "A dog.")]


@dataclass
class Server:
    """A loopback server with answers to give in turn, and what it was asked."""

    url: str = ""
    answers: list[tuple[int, Any]] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    found = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["content-length"]))))

        def _answer(self, body: Any) -> None:
            found.asked.append(
                {"path": self.path, "body": body, "key": self.headers.get("authorization")}
            )
            status, content = found.answers.pop(0)
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None: ...

    monkeypatch.setattr(endpoint, "FIRST_PAUSE_S", 0.01)
    for name in ("LONGREEL_SUMMARIZER_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
        found.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
        yield found
        http.shutdown()


def _said(text: str) -> tuple[int, Any]:
    return 200, {"choices": [{"message": {"role": "assistant", "content": text}}]}


def test_it_is_given_every_part_with_its_time(server: Server) -> None:
    server.answers = [_said(" Pets. ")]
    assert Endpoint(server.url, "big").summarize(NODES) == "Pets."
    (asked,) = server.asked
    assert asked["path"] == "/v1/chat/completions"
    assert asked["body"]["model"] == "big"
    text = asked["body"]["messages"][-1]["content"]
    assert "0.0 to 30.0 s:\nA cat." in text
    assert "30.0 to 61.5 s:\nA dog." in text


@pytest.mark.slow
def test_a_busy_endpoint_is_asked_again(server: Server) -> None:
    """Guards against a job that fails for one 503 of a shared model."""
    server.answers = [(503, {}), (429, {}), (500, b"oops"), _said("Pets.")]
    assert Endpoint(server.url, "big").summarize(NODES) == "Pets."
    assert len(server.asked) == 4


@pytest.mark.slow
@pytest.mark.parametrize("answer", [(401, {}), (404, {}), (200, b"<html>"), (200, {"no": 1})])
def test_a_refusal_is_said_once(server: Server, answer: tuple[int, Any]) -> None:
    """Guards against minutes of retries for a wrong key, and against a traceback."""
    server.answers = [answer]
    with pytest.raises(LongreelError, match="the summarizer"):
        Endpoint(server.url, "big").summarize(NODES)
    assert len(server.asked) == 1


@pytest.mark.slow
def test_an_endpoint_that_stays_away_is_an_error(server: Server) -> None:
    server.answers = [(503, {})] * endpoint.ATTEMPTS
    with pytest.raises(LongreelError, match="does not answer: HTTP 503"):
        Endpoint(server.url, "big").summarize(NODES)


@pytest.mark.slow
def test_the_model_is_the_first_unless_named(server: Server) -> None:
    models = (200, {"data": [{"id": "small"}, {"id": "big"}]})
    server.answers = [models] * 3
    assert find_endpoint(server.url, None).model == "small"
    assert find_endpoint(server.url, "big").model == "big"
    with pytest.raises(LongreelError, match="no model 'huge'; it has small, big"):
        find_endpoint(server.url, "huge")


@pytest.mark.slow
def test_the_key_is_sent_and_never_shown(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a key in rows, records or messages."""
    monkeypatch.setenv("LONGREEL_SUMMARIZER_API_KEY", "sesame")
    server.answers = [(200, {"data": [{"id": "small"}]}), (401, {})]
    found = find_endpoint(server.url, None)
    with pytest.raises(LongreelError) as refused:
        found.summarize(NODES)
    assert [asked["key"] for asked in server.asked] == ["Bearer sesame"] * 2
    assert "sesame" not in f"{found!r} {refused.value}"


@pytest.mark.parametrize("secret", ["http://user:hunter2@host/v1", "http://host/v1?key=hunter2"])
def test_a_secret_in_the_address_is_refused(secret: str) -> None:
    """Guards against a password in the job's record."""
    with pytest.raises(UsageError, match="LONGREEL_SUMMARIZER_API_KEY") as refused:
        check_address(secret)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("url", ["host:8000/v1", "s3://bucket", "", "file:///etc"])
def test_an_address_of_another_kind_is_wrong_use(url: str) -> None:
    with pytest.raises(UsageError, match="--summarizer"):
        check_address(url)


@pytest.mark.slow
def test_nobody_there_is_one_line() -> None:
    with pytest.raises(LongreelError, match=r"http://127\.0\.0\.1:9/v1 does not answer"):
        find_endpoint("http://127.0.0.1:9/v1", None)
