"""The API as a whole: what every error looks like, and what its page shows.

Guards against an error that a program cannot act on, and a page that shows another API.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from longreel import __version__
from longreel.errors import LongreelError, UsageError
from serve.live.items import SessionError
from serve.routes.errors import STATUS
from tests.serve.memory_sessions import MemorySessions
from tests.serve.routes_server import application, client

pytestmark = pytest.mark.anyio


@pytest.fixture
async def api() -> AsyncIterator[httpx.AsyncClient]:
    """The API, with ``/raise/{what}`` beside it, which raises."""
    app = application(MemorySessions())
    raised: dict[str, Exception] = {
        "unexpected": KeyError("a secret"),
        "usage": UsageError("no such thing"),
        "failed": LongreelError("the disk is full"),
        "odd": SessionError("invalid_value", "not text: \ud800"),
        **{code: SessionError(code, f"it is {code}") for code in STATUS},
    }

    @app.get("/raise/{what}")
    async def raising(what: str) -> None:
        raise raised[what]

    async with client(app) as opened:
        yield opened


async def error_of(api: httpx.AsyncClient, method: str, path: str, **sent: Any) -> dict[str, Any]:
    """The error of a reply, with its ``status``; it has OpenAI's fields and no others."""
    reply = await api.request(method, path, **sent)
    body = reply.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert "Traceback" not in reply.text
    return {**body["error"], "status": reply.status_code}


async def test_what_nobody_expected_tells_the_client_nothing(api: httpx.AsyncClient) -> None:
    """Guards against tracebacks and values of ours in replies."""
    error = await error_of(api, "GET", "/raise/unexpected")
    assert (error["status"], error["type"], error["code"]) == (
        500,
        "server_error",
        "internal_error",
    )
    assert "secret" not in error["message"]


async def test_errors_with_a_line_for_the_user(api: httpx.AsyncClient) -> None:
    usage = await error_of(api, "GET", "/raise/usage")
    assert (usage["status"], usage["code"]) == (400, "invalid_value")
    assert usage["message"] == "no such thing"
    failed = await error_of(api, "GET", "/raise/failed")
    assert (failed["status"], failed["type"]) == (500, "server_error")
    assert failed["message"] == "the disk is full"
    assert (await error_of(api, "GET", "/raise/odd"))["message"] == "not text: ?"


@pytest.mark.slow
@pytest.mark.parametrize("code", STATUS)
async def test_each_code_has_its_status(api: httpx.AsyncClient, code: str) -> None:
    error = await error_of(api, "GET", f"/raise/{code}")
    assert (error["status"], error["code"]) == (STATUS[code], code)
    assert error["message"] == f"it is {code}"


async def test_routes_that_are_not_there(api: httpx.AsyncClient) -> None:
    unknown = await error_of(api, "GET", "/v1/nowhere")
    assert (unknown["status"], unknown["code"]) == (404, "not_found")
    assert "/v1/nowhere" in unknown["message"]
    wrong = await error_of(api, "PUT", "/v1/sessions")
    assert (wrong["status"], wrong["code"]) == (405, "method_not_allowed")


async def test_bodies_that_do_not_fit(api: httpx.AsyncClient) -> None:
    headers = {"content-type": "application/json"}
    broken = await error_of(api, "POST", "/v1/sessions", content=b"{", headers=headers)
    assert (broken["status"], broken["code"]) == (400, "invalid_value")
    nested = await error_of(api, "POST", "/v1/sessions", json={"memory": {"frames": "many"}})
    assert (nested["status"], nested["param"]) == (422, "memory.frames")
    odd = await error_of(api, "POST", "/v1/sessions", content=b'{"\\ud800": 1}', headers=headers)
    assert odd["status"] == 422
    deep = await error_of(api, "POST", "/v1/sessions", content=b"[" * 100_000, headers=headers)
    assert deep["status"] in (400, 422)
    query = await error_of(api, "GET", "/v1/sessions/door/events?after=x")
    assert (query["status"], query["param"]) == (422, "after")


async def test_the_page_shows_an_example_of_every_request_and_reply(
    api: httpx.AsyncClient,
) -> None:
    """Guards the API's page: whoever writes a client needs nothing else."""
    told = (await api.get("/openapi.json")).json()
    assert told["info"]["version"] == __version__
    assert "session.created" in told["info"]["description"]
    schemas = told["components"]["schemas"]

    def has_example(content: dict[str, Any]) -> bool:
        name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
        places = (content, content.get("schema", {}), schemas.get(name, {}))
        return any("example" in place or "examples" in place for place in places)

    missing = []
    for path, methods in told["paths"].items():
        if path.startswith("/raise"):
            continue
        for method, operation in methods.items():
            where = f"{method.upper()} {path}"
            if not operation.get("summary") or not operation.get("description"):
                missing.append(f"{where}: what it does")
            body = operation.get("requestBody", {})
            bodies = {"request": body, **operation["responses"]}
            for kind, shape in bodies.items():
                for type_, content in shape.get("content", {}).items():
                    if not has_example(content) and "octet-stream" not in type_:
                        missing.append(f"{where}: {kind} {type_}")
    assert missing == []
    assert (await api.get("/docs")).status_code == 200
