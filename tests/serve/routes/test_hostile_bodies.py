"""Bodies and requests that are none: raw sockets against a real server of this process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from serve.routes import bodies
from tests.serve.memory_sessions import MemorySessions
from tests.serve.routes_server import application, client, served

_REPLY_S = 10.0

NASTY = [
    b"[" * 200_000,
    b'{"a":' * 100_000,
    b'{"fps": NaN}',
    b'{"fps": Infinity}',
    b'{"fps": -Infinity}',
    b'{"fps": 1e999}',
    b'{"fps": 1e-999}',
    b'{"max_tokens": ' + b"9" * 4000 + b"}",
    b'{"max_tokens": ' + b"9" * 100_000 + b"}",
    b'{"max_tokens": 1e400}',
    b'{"memory": {"frames": 18446744073709551616}}',
    b'{"instructions": "\\ud800"}',
    b'{"instructions": "\\udfff\\ud800 x"}',
    b'{"\\ud800": 1}',
    b'{"id": "\\ud800"}',
    b'{"instructions": "\xff\xfe"}',
    b'{"instructions": "\x00"}',
    '{"fps": 2}'.encode("utf-16"),
    '{"fps": 2}'.encode("utf-32"),
    b'\xef\xbb\xbf{"fps": "x"}',
    b'{"fps": 2',
    b'{"fps": 2}{"fps": 3}',
    b'{"fps": 1, "fps": "x"}',
    b'{"id": "new"}',
    b'{"id": "../../etc/passwd"}',
    b'{"id": "a\\u0000b"}',
    b"null",
    b"0",
    b'"x"',
    b"true",
    b"[]",
    b"\x80\x04\x95",
]


#: That are right, where a body may be left out, or is a session's.
RIGHT = (
    b"null",
    b'{"instructions": "\x00"}',
    '{"fps": 2}'.encode("utf-16"),
    '{"fps": 2}'.encode("utf-32"),
)


@pytest.mark.parametrize("path", ["/v1/sessions", "/v1/sessions/watched/responses",
                                  "/v1/chat/completions", "/v1/streams", "/v1/jobs"])  # fmt: skip
def test_no_json_ends_in_a_5xx(path: str) -> None:
    """Guards against values that only some layer understands."""

    async def scenario() -> None:
        sessions = MemorySessions()
        async with client(application(sessions)) as http:
            await http.post("/v1/sessions", json={"id": "watched"})
            for body in NASTY:
                for kind in ("application/json", "application/json; charset=utf-7", "text/plain"):
                    reply = await http.post(path, content=body, headers={"content-type": kind})
                    right = reply.status_code == 201 and path == "/v1/sessions" and body in RIGHT
                    assert right or 400 <= reply.status_code < 500, (body[:80], kind, reply.text)
                    assert right or reply.json()["error"]["message"], (body[:80], kind)

    asyncio.run(scenario())


def test_json_of_many_values_is_refused_before_it_is_read() -> None:
    """Guards memory: a list takes twenty times the bytes that spell it, and half a GiB may come."""

    async def scenario() -> None:
        sent = 0

        async def lists() -> AsyncIterator[bytes]:
            nonlocal sent
            yield b'{"model": "longreel-tiny", "messages": ['
            for _ in range(64):
                sent += 2**20
                yield b"[]," * (2**20 // 3)

        async with client(application(MemorySessions())) as http:
            kind = {"content-type": "application/json"}
            reply = await http.post("/v1/chat/completions", content=lists(), headers=kind)
            assert (reply.status_code, reply.json()["error"]["code"]) == (413, "media_too_large")
            assert "values" in reply.json()["error"]["message"]
            assert sent <= 2 * 2**20
            # What is long by its strings is none of that, nor are bytes that are no JSON.
            long = {"model": "x", "messages": [{"role": "user", "content": "x" * 2**22}]}
            assert (await http.post("/v1/chat/completions", json=long)).status_code != 413
            plain: dict[str, Any] = {
                "content": b"," * 2**20,
                "headers": {"content-type": "image/jpeg"},
            }
            await http.post("/v1/sessions", json={"id": "watched"})
            frames = await http.post("/v1/sessions/watched/frames", **plain)
            assert frames.json()["error"]["code"] == "unsupported_media_type"

    asyncio.run(scenario())


def _head(path: str, *lines: str) -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: x", *lines, "", ""]).encode()


_FRAMES = "/v1/sessions/watched/frames"
_JPEG = "Content-Type: image/jpeg"
#: What is sent, and the statuses that may answer it; none where the connection just ends.
_REQUESTS: dict[str, tuple[bytes, set[int]]] = {
    "no end of a chunk": (
        _head(_FRAMES, _JPEG, "Transfer-Encoding: chunked") + b"ff\r\nabc",
        set(),
    ),
    "no end of chunks": (
        _head(_FRAMES, _JPEG, "Transfer-Encoding: chunked") + b"3\r\nabc\r\n",
        set(),
    ),
    "a chunk of no size": (
        _head(_FRAMES, _JPEG, "Transfer-Encoding: chunked") + b"zz\r\nabc\r\n0\r\n\r\n",
        {400},
    ),
    "a chunk of all bytes there are": (
        _head(_FRAMES, _JPEG, "Transfer-Encoding: chunked") + b"ffffffffffffffff\r\nabc",
        {408},
    ),
    "less than it says, and silence": (
        _head(_FRAMES, _JPEG, "Content-Length: 100") + b"abc",
        {408},
    ),
    "less than it says, of JSON": (
        _head("/v1/sessions", "Content-Type: application/json", "Content-Length: 100") + b"{",
        {408},
    ),
    "less than it says, and gone": (_head(_FRAMES, _JPEG, "Content-Length: 100") + b"abc", set()),
    "a length below none": (_head(_FRAMES, _JPEG, "Content-Length: -1") + b"abc", {400}),
    "a length that is none": (_head(_FRAMES, _JPEG, "Content-Length: 0x3") + b"abc", {400}),
    "two lengths": (
        _head(_FRAMES, _JPEG, "Content-Length: 3", "Content-Length: 4") + b"abcd",
        {400},
    ),
    "a length and chunks": (
        _head(_FRAMES, _JPEG, "Content-Length: 3", "Transfer-Encoding: chunked")
        + b"3\r\nabc\r\n0\r\n\r\n",
        {400},
    ),
    "a length of terabytes": (_head(_FRAMES, _JPEG, "Content-Length: 1000000000000"), {413}),
    "more than it says": (
        _head(_FRAMES, _JPEG, "Content-Length: 3") + b"abc" + b"\x00" * 5000,
        {400},
    ),
    "no line ends": (b"POST / HTTP/1.1" + b"x" * 100_000, {400, 431}),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), {400}),
    "headers without an end": (
        b"POST / HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(10_000)),
        set(),
    ),
    "a form without an end": (
        _head(
            _FRAMES, "Content-Type: multipart/form-data; boundary=b", "Transfer-Encoding: chunked"
        )
        + b'40\r\n--b\r\nContent-Disposition: form-data; name="frames"; filename="x"\r\n',
        set(),
    ),
    "a form whose headers have no end": (
        _head(_FRAMES, "Content-Type: multipart/form-data; boundary=b", "Content-Length: 60000")
        + b"--b\r\n"
        + b"X: y\r\n" * 10_000,
        {400, 413},
    ),
    "a form of a thousand parts and more": (
        _head(_FRAMES, "Content-Type: multipart/form-data; boundary=b", "Content-Length: 132000")
        + b'--b\r\nContent-Disposition: form-data; name="frames"; filename="x"\r\n\r\n\r\n' * 2000,
        {400},
    ),
}


@pytest.mark.slow
def test_requests_that_are_none(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards the server, and its log, against clients that break the protocol or leave amid it."""
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(bodies, "SILENCE_S", 0.5)
    errors = logging.getLogger("uvicorn.error")

    async def scenario() -> None:
        sessions = MemorySessions()
        app = application(sessions)
        async with client(app) as http:
            await http.post("/v1/sessions", json={"id": "watched"})
        async with served(app) as address:
            errors.addHandler(caplog.handler)
            await asyncio.gather(*(_answered(address, name) for name in _REQUESTS))
            alive = await _exchange(address, b"GET /healthz HTTP/1.0\r\n\r\n")
            assert alive.startswith(b"HTTP/1.1 200")

    try:
        asyncio.run(scenario())
    finally:
        errors.removeHandler(caplog.handler)
    loud = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert [record.getMessage() for record in loud] == []


async def _answered(address: str, name: str) -> None:
    sent, statuses = _REQUESTS[name]
    reply = await _exchange(address, sent, waits=bool(statuses))
    if statuses:
        assert reply.startswith(b"HTTP/1.1 "), (name, reply[:200])
        last = reply.rindex(b"HTTP/1.1 ")
        assert int(reply[last + 9 : last + 12]) in statuses, (name, reply[:300])


async def _exchange(address: str, sent: bytes, waits: bool = True) -> bytes:
    """What comes for ``sent``; a client that does not wait leaves amid its own words."""
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    reply = b""
    try:
        writer.write(sent)
        if waits:
            async with asyncio.timeout(_REPLY_S):
                while part := await reader.read(2**16):
                    reply += part
                    if b"\r\n\r\n" in reply and b'"error"' in reply:
                        break
        else:
            await asyncio.sleep(0.1)
    except ConnectionError:
        pass
    finally:
        writer.close()
    return reply
