"""What clients are told where something other than their request fails."""

from __future__ import annotations

from typing import Any, cast

import httpx
import pytest

from serve.routes.app import build
from serve.routes.context import Answers, ApiSettings, Context
from serve.streams import RayStreams
from tests.serve.memory_sessions import MemorySessions
from tests.serve.routes_server import MODEL, client

pytestmark = pytest.mark.anyio

STORE = "s3://nobodys-bucket/state"
FILE = "file-" + "0" * 32


def chat_about(url: str) -> dict[str, Any]:
    """A request with a picture."""
    picture = {"type": "image_url", "image_url": {"url": url}}
    return {"model": MODEL.name, "messages": [{"role": "user", "content": [picture]}]}


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Context:
    """A service on a state store that no client can be made for."""
    monkeypatch.setenv("LONGREEL_S3_ADDRESSING_STYLE", "none")
    sessions = MemorySessions()
    settings = ApiSettings(allow_private_urls=True, s3_buckets=("theirs",))
    streams = RayStreams(sessions, MemorySessions, MODEL, STORE, settings)
    return Context(sessions, cast(Answers, None), MODEL, STORE, settings, streams)


async def test_a_state_store_that_fails_is_no_fault_of_the_client(failing: Context) -> None:
    """Guards clients that try again after 503 and give up after 500, and the store's address."""
    upload = {"files": {"file": ("a.bin", b"x")}, "data": {"purpose": "vision"}}
    async with client(build(failing)) as http:

        async def told(method: str, path: str, **sent: Any) -> httpx.Response:
            return await http.request(method, path, **sent)

        for answer in (
            await told("POST", "/v1/files", **upload),
            await told("GET", "/v1/files"),
            await told("GET", f"/v1/files/{FILE}"),
            await told("GET", f"/v1/files/{FILE}/content"),
            await told("DELETE", f"/v1/files/{FILE}"),
            await told("POST", "/v1/chat/completions", json=chat_about(FILE)),
            await told("POST", "/v1/streams", json={"url": "http://127.0.0.1:9/x.ts"}),
            await told("GET", "/v1/streams"),
            await told("GET", "/v1/streams/door"),
            await told("DELETE", "/v1/streams/door"),
        ):
            asked = f"{answer.request.method} {answer.request.url.path}"
            assert answer.status_code == 503, asked
            assert int(answer.headers["retry-after"]) > 0
            error = answer.json()["error"]
            assert (error["code"], error["type"]) == ("unavailable", "server_error")
            assert error["message"] == "the state store fails: BadSetting"


async def test_an_object_that_a_client_names_is_the_clients(failing: Context) -> None:
    """Guards against 503 for an address that no second try makes readable."""
    async with client(build(failing)) as http:
        answer = await http.post("/v1/chat/completions", json=chat_about("s3://theirs/a.jpg"))
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "url_unreachable"
