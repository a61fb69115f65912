"""The WebSocket of a session: real clients against a real uvicorn.

Guards against a frame without its one reply, and a message that takes the connection with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket as sockets_of_os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from serve.live.items import Receipt, SessionError, SessionOptions
from serve.routes import connection
from tests.serve.memory_sessions import MemorySessions
from tests.serve.routes_server import application, described, picture, served, until
from tests.videos import write_video

# Connections and their sessions live on the event loop that the tests look at.
pytestmark = [pytest.mark.anyio, pytest.mark.waits]


@pytest.fixture
def sessions() -> MemorySessions:
    return MemorySessions(side=96)


@pytest.fixture
def app(sessions: MemorySessions) -> FastAPI:
    return application(sessions, max_upload_bytes=2**20)


@pytest.fixture
async def address(app: FastAPI) -> AsyncIterator[str]:
    async with served(app) as found:
        yield f"ws://{found}/v1/sessions"


async def hear(client: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(20):
        return json.loads(await client.recv())


async def hear_until(client: ClientConnection, type_: str) -> list[dict[str, Any]]:
    """Messages up to the first of a type."""
    found = [await hear(client)]
    while found[-1]["type"] != type_:
        found.append(await hear(client))
    return found


async def closed(client: ClientConnection) -> tuple[int, str]:
    """Code and reason of the close, after whatever still comes."""
    async with asyncio.timeout(20):
        with contextlib.suppress(ConnectionClosed):
            while True:
                await client.recv()
    return client.close_code or 0, client.close_reason or ""


@pytest.mark.slow
async def test_a_whole_session_on_one_socket(address: str, sessions: MemorySessions) -> None:
    query = "instructions=Count.&fps=4&memory=full&max_tokens=9&id=door"
    async with connect(f"{address}/new/stream?{query}") as client:
        made = await hear(client)
        assert made["type"] == "session.created"
        assert made["session"]["id"] == "door"
        assert made["session"]["options"]["fps"] == 4
        assert made["session"]["options"]["memory"]["policy"] == "full"
        await client.send(described(seq=1, time_s=3.0))
        await client.send(picture(255))
        await client.send(described(seq=2, time_s=3.1))
        await client.send(picture(255))
        told = await hear_until(client, "narration")
        replies = [m for m in told if m["type"].startswith("frame.")]
        assert replies[0] == {
            "type": "frame.accepted",
            "seq": 1,
            "frame": 0,
            "time_s": 3.0,
            "repeated": False,
        }
        said = "".join(m["delta"] for m in told if m["type"] == "narration.delta")
        assert said == told[-1]["text"] == "A bright scene at 3.00 s."
        await client.send(json.dumps({"type": "response.create", "input": "Why?"}))
        answer = await hear_until(client, "response.done")
        replies += [m for m in answer if m["type"].startswith("frame.")]
        assert replies[1:] == [{"type": "frame.dropped", "seq": 2, "reason": "rate"}]
        (kept,) = [m for m in answer if m["type"] == "response.accepted"]
        assert (kept["seq"], kept["response"]) == (3, answer[-1]["response"])
        said = "".join(m["delta"] for m in answer if m["type"] == "response.delta")
        assert said == answer[-1]["text"] == "You asked: Why? Frames seen: 1."
        await client.send('{"type": "session.close"}')
        end = await hear_until(client, "session.stats")
        assert end[-1] == {
            "type": "session.stats",
            "frames_accepted": 1,
            "frames_dropped": 1,
            "narrations": 1,
            "responses": 1,
        }
        assert await closed(client) == (1000, "the session is closed")
    assert (await sessions.view("door")).state == "closed"


@pytest.mark.slow
async def test_every_frame_gets_one_reply_in_its_order(
    address: str, sessions: MemorySessions
) -> None:
    """Guards order and count when frames, bad frames and questions come as fast as they can."""
    levels = [n % 120 for n in range(120)]
    async with connect(f"{address}/new/stream?id=door&frames=true") as client:
        await hear(client)
        for number, level in enumerate(levels):
            if number % 10 == 7:
                await client.send(b"\xff\xd8\xff no picture")
            if number % 10 == 9:
                await client.send('{"type": "response.create", "input": "?"}')
            await client.send(picture(level, side=8 if number % 2 else 64))
        told: list[dict[str, Any]] = []
        while sum(m["type"] in ("frame.accepted", "error", "frame.seen") for m in told) < 252:
            told.append(await hear(client))
    accepted = [m for m in told if m["type"] == "frame.accepted"]
    assert [m["frame"] for m in accepted] == list(range(120))
    assert sum(m["type"] == "error" for m in told) == 12
    seen = [m for m in told if m["type"] == "frame.seen"]
    for level, one in zip(levels, seen, strict=True):
        assert one["p_silence"] == pytest.approx(1 - level / 255, abs=0.01)
    kinds = [m["type"] for m in told if m["type"] in ("frame.accepted", "error")]
    assert [n for n, kind in enumerate(kinds) if kind == "error"] == [7 + 11 * n for n in range(12)]


async def test_frames_sent_again_late_or_with_a_gap(address: str, sessions: MemorySessions) -> None:
    await sessions.open(SessionOptions(), "door")
    async with connect(f"{address}/door/stream") as client:
        await hear(client)
        for fields in (
            {"seq": 1, "time_s": 5},
            {"seq": 1, "time_s": 5},
            {"seq": 2, "time_s": 4},
            {"seq": 9, "time_s": 9},
            {"seq": 3, "time_s": 5.5},
        ):
            await client.send(described(**fields))
            await client.send(picture(0))
        told = [await hear(client) for _ in range(5)]
    assert [(m["type"], m["seq"]) for m in told] == [
        ("frame.accepted", 1),
        ("frame.accepted", 1),
        ("frame.dropped", 2),
        ("error", 9),
        ("frame.accepted", 3),
    ]
    assert [m.get("repeated") for m in told] == [False, True, None, None, False]
    assert told[3]["code"] == "sequence_gap"
    assert (await sessions.view("door")).frames == 2


async def test_a_piece_of_video_gets_a_reply_for_each_frame(address: str, tmp_path: Path) -> None:
    clip = write_video(tmp_path / "piece.mp4", n_frames=50)
    async with connect(f"{address}/new/stream?fps=5") as client:
        await hear(client)
        await client.send(described(seq=1, time_s=10))
        await client.send(clip.path.read_bytes())
        await client.send(clip.path.read_bytes()[:2000])
        told: list[dict[str, Any]] = []
        while len(told) < 11:
            message = await hear(client)
            told += [message] if message["type"] in ("frame.accepted", "error") else []
    assert [m["seq"] for m in told[:10]] == list(range(1, 11))
    assert [m["time_s"] for m in told[:10]] == pytest.approx([10 + n / 5 for n in range(10)])
    assert (told[10]["type"], told[10]["code"]) == ("error", "media_error")


async def test_malformed_messages_leave_connection_and_session(
    address: str, sessions: MemorySessions
) -> None:
    async with connect(f"{address}/new/stream?id=door") as client:
        await hear(client)
        for message in ("no", "{}", described(seq=-1), b"", b"what?", b"x" * (2**20 + 1)):
            await client.send(message)
        codes = [(await hear(client))["code"] for _ in range(6)]
        assert codes == [
            "invalid_value",
            "invalid_value",
            "invalid_value",
            "invalid_frame",  # whose description was refused
            "unsupported_media_type",
            "media_too_large",
        ]
        await client.send(picture(0))
        assert (await hear(client))["type"] == "frame.accepted"


@pytest.mark.slow
async def test_ping_and_cancel_do_not_wait_behind_frames(
    address: str, sessions: MemorySessions
) -> None:
    """Guards against a cancel that comes when there is nothing left to cancel."""
    async with connect(f"{address}/new/stream?id=door") as client:
        await hear(client)
        await client.send('{"type": "response.cancel"}')
        assert await hear(client) == {"type": "response.cancelled", "cancelled": False}
        sessions.step_s = 0.3
        await client.send(picture(255))
        await hear_until(client, "narration.delta")
        await client.send('{"type": "response.create", "input": "?"}')
        await client.send('{"type": "ping"}')
        await client.send('{"type": "response.cancel"}')
        told = await hear_until(client, "response.done")
        types = [m["type"] for m in told]
        assert types.index("pong") < types.index("narration")
        (narration,) = [m for m in told if m["type"] == "narration"]
        assert narration["cancelled"] is True
        assert told[-1]["text"] == "You asked: ? Frames seen: 1."


@pytest.mark.slow
async def test_a_client_that_vanishes_leaves_the_session_as_it_is(
    address: str, sessions: MemorySessions
) -> None:
    """Guards against tasks for nobody, and against a session that ends with a connection."""
    before = len(asyncio.all_tasks())
    sessions.step_s = 0.02
    client = await connect(f"{address}/new/stream?id=door")
    await hear(client)
    await client.send(picture(255))
    await hear_until(client, "narration.delta")
    client.transport.abort()
    await until(lambda: len(asyncio.all_tasks()) <= before)
    view = await sessions.view("door")
    assert (view.state, view.frames, view.waiting_frames) == ("live", 1, 0)
    # It comes back and is told the rest, and nothing twice.
    async with connect(f"{address}/door/stream?after=2") as client:
        await hear(client)
        told = await hear_until(client, "narration")
    assert [m["number"] for m in told] == list(range(3, view.events + 1))


@pytest.mark.slow
async def test_a_client_that_does_not_read_is_let_go(
    app: FastAPI, address: str, sessions: MemorySessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards memory: what waits for it is bounded, and it is told why and where to go on."""
    monkeypatch.setattr(connection, "STALL_S", 0.3)
    view = await sessions.open(SessionOptions(), "door")
    talking = sessions._sessions[view.id]
    raw = sockets_of_os.socket()
    raw.setsockopt(sockets_of_os.SOL_SOCKET, sockets_of_os.SO_RCVBUF, 4096)
    raw.connect(("127.0.0.1", int(address.split(":")[2].split("/")[0])))
    raw.setblocking(False)
    before = len(asyncio.all_tasks())
    async with connect(f"{address}/door/stream", sock=raw, max_queue=1, compression=None) as slow:
        await hear(slow)
        slow.transport.pause_reading()
        for _ in range(400):
            talking._tell("narration", frame=0, time_s=0.0, text="x" * 50_000, cancelled=False)
        (held,) = app.state.connections.open
        most = 0
        for _ in range(60):
            await asyncio.sleep(0.01)
            most = max(most, held._unsent.qsize())
        assert most <= connection._MOST_UNSENT
        slow.transport.resume_reading()
        code, reason = await closed(slow)
        assert code == connection.SLOW_READER
        assert "come back" in reason
    await until(lambda: len(asyncio.all_tasks()) <= before)
    assert (await sessions.view("door")).state == "live"


@pytest.mark.slow
async def test_a_client_that_sends_and_does_not_read_is_held_back(
    app: FastAPI, address: str, sessions: MemorySessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards memory on the way in: what was heard waits in bounds, and the socket for the rest."""
    monkeypatch.setattr(connection, "_MOST_HEARD_BYTES", 2**18)
    async with connect(f"{address}/new/stream?id=door") as client:
        await hear(client)
        (held,) = app.state.connections.open
        gate = asyncio.Event()
        give = sessions.give

        async def slow_give(*args: Any, **kwargs: Any) -> list[Receipt]:
            await gate.wait()
            return await give(*args, **kwargs)

        monkeypatch.setattr(sessions, "give", slow_give)
        noise = picture(9, 96) + bytes(2**17)
        sending = [asyncio.create_task(client.send(noise)) for _ in range(100)]
        heard = held._heard
        await until(heard.full)
        await asyncio.sleep(0.2)
        assert heard._bytes <= 2**18 + len(noise)
        gate.set()
        await asyncio.gather(*sending)
        for number in range(100):
            assert (await hear(client))["seq"] == number + 1


@pytest.mark.slow
async def test_decoded_frames_are_handed_in_before_they_are_many(
    address: str, sessions: MemorySessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards memory: a small message can hold very many pixels."""
    monkeypatch.setattr(connection, "_MOST_DECODED_BYTES", 3 * 96 * 96 * 3)
    calls: list[int] = []
    give = sessions.give

    async def counted(session: str, given: Any, seq: int | None = None) -> list[Receipt]:
        calls.append(len(given))
        await asyncio.sleep(0.1)  # so that more is heard meanwhile
        return await give(session, given, seq)

    monkeypatch.setattr(sessions, "give", counted)
    async with connect(f"{address}/new/stream?id=door") as client:
        await hear(client)
        for _ in range(20):
            await client.send(picture(0))
        for number in range(20):
            assert (await hear(client))["seq"] == number + 1
    assert max(calls) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("nobody/stream", 404, "session_not_found"),
        ("closed/stream?after=99", 410, "session_closed"),
        ("new/stream?fps=0", 400, "invalid_value"),
        ("new/stream?fps=1e-308", 400, "invalid_value"),
        ("new/stream?memory=all", 400, "invalid_value"),
        ("new/stream?instruction=misspelt", 400, "invalid_value"),
        ("door/stream?after=-1", 400, "invalid_value"),
        ("new/stream?id=door", 400, "invalid_value"),
        ("new/stream", 429, "overloaded"),
    ],
)
async def test_a_connection_that_is_refused_says_why(
    address: str, sessions: MemorySessions, path: str, status: int, code: str
) -> None:
    """Guards browsers, which show a page no status of a refused handshake."""
    await sessions.open(SessionOptions(), "closed")
    await sessions.close("closed")
    await sessions.open(SessionOptions(), "door")
    sessions.most_sessions = 1 if status == 429 else 9
    async with connect(f"{address}/{path}") as client:
        told = await hear(client)
        assert (told["type"], told["code"]) == ("error", code)
        assert await closed(client) == (4000 + status, code)


async def test_what_the_service_cannot_do_at_present(
    address: str, sessions: MemorySessions
) -> None:
    """Guards against a client that takes silence for a frame that arrived."""
    async with connect(f"{address}/new/stream?id=door") as client:
        await hear(client)
        give = sessions.give

        async def overloaded(*args: Any) -> list[Receipt]:
            raise SessionError("overloaded", "later")

        sessions.give = overloaded  # type: ignore[method-assign, assignment]
        await client.send(described(seq=1))
        await client.send(picture(0))
        await client.send('{"type": "response.create", "input": "?", "seq": 1}')
        for _ in range(2):
            told = await hear(client)
            assert (told["type"], told["code"], told["seq"]) == ("error", "overloaded", 1)
        sessions.give = give  # type: ignore[method-assign]
        await client.send(picture(0))
        assert (await hear(client))["type"] == "frame.accepted"


async def test_a_failure_inside_ends_the_connection_and_nothing_else(
    address: str, sessions: MemorySessions
) -> None:
    """Guards against a connection that hangs when one of its tasks has died."""

    async def broken(*args: Any) -> list[Receipt]:
        raise RuntimeError("secret")

    give = sessions.give
    async with connect(f"{address}/new/stream?id=door") as client:
        await hear(client)
        sessions.give = broken  # type: ignore[method-assign, assignment]
        await client.send(picture(0))
        assert await closed(client) == (1011, "the service failed")
    sessions.give = give  # type: ignore[method-assign]
    async with connect(f"{address}/door/stream") as client:
        await hear(client)
        await client.send(picture(0))
        assert (await hear(client))["seq"] == 1


async def test_before_a_planned_move_clients_are_told(app: FastAPI, address: str) -> None:
    async with connect(f"{address}/new/stream") as client:
        await hear(client)
        app.state.connections.goaway("the gateway is being replaced")
        said = {"type": "session.goaway", "reason": "the gateway is being replaced"}
        assert await hear(client) == said
    await until(lambda: not app.state.connections.open)
