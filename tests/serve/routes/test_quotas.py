"""What a key may use, through the routes and a socket.

Guards against a way past a limit, and a place that nobody gets back.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

from serve.routes.owned import touches
from tests.serve.keyed import Key, Keyed, opened, until_type
from tests.serve.routes_server import client, form, picture, served
from tests.serve.served import MODEL

pytestmark = [pytest.mark.anyio, pytest.mark.waits]
JPEG = {"Content-Type": "image/jpeg"}


def exceeded(answer: httpx.Response, status: int = 429) -> int:
    """Seconds after which it may be tried again."""
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["code"] == "quota_exceeded"
    return int(answer.headers.get("retry-after", 0))


# Sessions, streams, jobs.


async def test_sessions_at_once(keyed: Keyed) -> None:
    """Guards against one more than the limit when many ask at once, and against a lost place."""
    key, other = keyed.key(sessions=3), keyed.key()
    async with client(keyed.app()) as http:

        async def ask() -> httpx.Response:
            return await http.post("/v1/sessions", json={}, headers=key.headers)

        answers = await asyncio.gather(*(ask() for _ in range(12)))
        assert Counter(a.status_code for a in answers) == {201: 3, 429: 9}
        assert exceeded(next(a for a in answers if a.status_code == 429)) > 0
        first = next(a.json()["id"] for a in answers if a.status_code == 201)
        await opened(http, other)
        await http.delete(f"/v1/sessions/{first}", headers=key.headers)
        await opened(http, key)
        exceeded(await ask())
        taken = await http.post("/v1/sessions", json={"id": "!"}, headers=key.headers)
        assert taken.status_code == 422
    async with client(keyed.app()) as http:  # a gateway that was restarted
        exceeded(await http.post("/v1/sessions", json={}, headers=key.headers))


async def test_a_stream_is_a_session_and_a_rate(keyed: Keyed) -> None:
    """Guards against limits that a pulled source passes by."""
    few, slow = keyed.key(sessions=1), keyed.key(frames_per_second=3)
    wanted = {"url": "http://127.0.0.1:9/none.mp4", "reconnect": True}
    async with client(keyed.app()) as http:
        made = await http.post("/v1/streams", json=wanted, headers=few.headers)
        assert made.status_code == 201, made.text
        exceeded(await http.post("/v1/streams", json=wanted, headers=few.headers))
        exceeded(await http.post("/v1/sessions", json={}, headers=few.headers))
        session = made.json()["session"]
        seen = await http.get(f"/v1/sessions/{session}", headers=few.headers)
        assert seen.status_code == 200

        first = await http.post("/v1/streams", json=wanted, headers=slow.headers)
        assert first.status_code == 201
        exceeded(await http.post("/v1/streams", json=wanted, headers=slow.headers))
        at_one = {**wanted, "fps": 1}
        assert (
            await http.post("/v1/streams", json=at_one, headers=slow.headers)
        ).status_code == 201
        # All at once: each waits for all pullers of this process.
        ends = [
            http.delete(f"/v1/streams/{each['id']}", headers=key.headers)
            for key in (few, slow)
            for each in (await http.get("/v1/streams", headers=key.headers)).json()["data"]
        ]
        await asyncio.gather(*ends)


async def test_jobs_at_once(keyed: Keyed) -> None:
    key, none = keyed.key(jobs=2), keyed.key(jobs=0)
    async with client(keyed.app()) as http:

        async def ask(number: int, who: Key = key) -> httpx.Response:
            wanted = {"sources": ["/videos/"], "output": f"/rows/{number}"}
            return await http.post("/v1/jobs", json=wanted, headers=who.headers)

        answers = await asyncio.gather(*(ask(number) for number in range(6)))
        assert Counter(a.status_code for a in answers) == {201: 2, 429: 4}
        exceeded(await ask(9, none))
        done = next(a.json()["id"] for a in answers if a.status_code == 201)
        await http.delete(f"/v1/jobs/{done}", headers=key.headers)
        assert (await ask(10)).status_code == 201
        exceeded(await ask(11))


async def test_jobs_keep_out_of_the_state_store(keyed: Keyed) -> None:
    """Guards against another's upload narrated by a job, and a key written by one."""
    key, store = keyed.key(), str(keyed.store)
    async with client(keyed.app()) as http:
        for wanted in (
            {"sources": [f"{store}/files/"]},
            {"sources": ["/videos/", f"file://{store}/files/*"]},
            {"sources": [f"{keyed.store.parent}/*/files/*"]},
            {"sources": ["/"]},
            {"output": f"{store}/keys"},
            {"output": f"{store}/x/../../{keyed.store.name}"},
            {"model": store},
        ):
            asked = {"sources": ["/videos/"], "output": "/rows", **wanted}
            answer = await http.post("/v1/jobs", json=asked, headers=key.headers)
            assert answer.status_code == 400, wanted
            assert "not for jobs" in answer.json()["error"]["message"]
        asked = {"sources": ["/v/"], "output": "/rows", "summarizer": "http://evil.example/v1"}
        answer = await http.post("/v1/jobs", json=asked, headers=key.headers)
        assert answer.status_code == 400
        assert "summarizer" in answer.json()["error"]["message"]


async def test_jobs_reach_the_state_store_by_no_detour(tmp_path: Path) -> None:
    """Guards against names that the check reads otherwise than the job that is given them."""
    store = tmp_path / "store"
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "away")
    (tmp_path / "into").symlink_to(store)
    keyed = Keyed(store)
    key = keyed.key()
    async with client(keyed.app()) as http:
        for field, uri in (
            ("sources", f"{tmp_path}/link/../store/files/x"),
            ("sources", f"/tmp/x*/../..{store}/files/x"),
            ("sources", f"file:///tmp/%2e%2e{store}/files/x"),
            ("sources", f"file://{tmp_path}/stor%2A/files/*"),
            ("sources", f"{tmp_path}/into/files/*"),
            ("sources", f"/{store}/files/x"),
            ("output", f"{tmp_path}/link/../store/rows"),
            ("output", f"/proc/self/root{store}/keys"),
            ("model", f"/models/../..{store}"),
        ):
            asked = {"sources": ["/v/"], "output": "/rows", field: uri}
            if field == "sources":
                asked["sources"] = ["/v/", uri]
            answer = await http.post("/v1/jobs", json=asked, headers=key.headers)
            assert answer.status_code == 400, uri
            message = answer.json()["error"]["message"]
            assert message.startswith(f"{field}: "), message
            assert "not for jobs" in message


@pytest.mark.parametrize("uri", ["file://nas/videos", "s3://_/x", "nul\0"])
@pytest.mark.parametrize("field", ["sources", "output"])
async def test_what_is_no_uri_is_named(keyed: Keyed, field: str, uri: str) -> None:
    """Guards against a fault of the service where its client has mistyped."""
    asked = {"sources": ["/v/"], "output": "/rows", field: [uri] if field == "sources" else uri}
    async with client(keyed.app()) as http:
        answer = await http.post("/v1/jobs", json=asked, headers=keyed.key().headers)
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["message"].startswith(f"{field}: ")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "status"),
    [
        ("somebody/fifty-gigabytes", 400),
        ("models/../../etc", 400),
        (MODEL.name, 201),
        ("longreel-tiny", 201),
        ("/models/ours", 201),
        (None, 201),
    ],
)
async def test_jobs_fetch_no_models(keyed: Keyed, model: str | None, status: int) -> None:
    """Guards disks and GPUs against whatever a client finds on the hub."""
    asked = {"sources": ["/v/"], "output": "/rows", "model": model}
    async with client(keyed.app()) as http:
        answer = await http.post("/v1/jobs", json=asked, headers=keyed.key().headers)
        assert answer.status_code == status, answer.text


@pytest.mark.parametrize(
    ("uri", "inside"),
    [
        ("s3://state/longreel/files/", True),
        ("s3://state/longreel", True),
        ("s3://state/", True),
        ("s3://state", True),
        ("s3://state/long*", True),
        ("s3://state//longreel", True),
        ("s3://state/x/../longreel/files", True),
        ("s3://state/./longreel", True),
        ("s3://state/%6congreel", False),
        ("s3://state/longreel2/files/", False),
        ("s3://other/longreel/files/", False),
        ("/state/longreel/files", False),
    ],
)
def test_what_lies_in_a_store(uri: str, inside: bool) -> None:
    assert touches(uri, "s3://state/longreel") == inside


# Frames.


async def test_frames_faster_than_the_rate_are_refused_whole(keyed: Keyed) -> None:
    """Guards against a call of which some frames were taken in."""
    key = keyed.key(frames_per_second=0.01)
    async with client(keyed.app()) as http:
        session = await opened(http, key)
        there = f"/v1/sessions/{session}/frames"
        first = await http.post(there, files=form(0, 10, 20, 30), headers=key.headers)
        assert first.status_code == 200, "more than ever fit are paid for afterwards"
        wait_s = exceeded(await http.post(there, files=form(1, 2, 3), headers=key.headers))
        assert 390 < wait_s <= 400
        view = (await http.get(f"/v1/sessions/{session}", headers=key.headers)).json()
        assert (view["seq"], view["frames"]) == (4, 4)
        # Nothing is decoded for nothing, and another of the key's sessions is no way around.
        another = f"/v1/sessions/{await opened(http, key)}/frames"
        for path in (there, another):
            exceeded(await http.post(path, content=b"junk", headers={**key.headers, **JPEG}))
        asked = await http.post(
            f"/v1/sessions/{session}/responses", json={"input": "Why?"}, headers=key.headers
        )
        assert asked.status_code == 200, "a question is no frame"


@pytest.mark.slow
async def test_frames_of_calls_at_once(keyed: Keyed) -> None:
    key = keyed.key(frames_per_second=0.01)
    async with client(keyed.app()) as http:
        session = await opened(http, key)
        answers = await asyncio.gather(
            *(
                http.post(
                    f"/v1/sessions/{session}/frames?wait=false",
                    content=picture(9),
                    headers={**key.headers, **JPEG},
                )
                for _ in range(20)
            )
        )
        assert Counter(a.status_code for a in answers) == {202: 1, 429: 19}


@pytest.mark.slow
async def test_a_chat_about_a_video_is_not_cut_by_the_rate(keyed: Keyed) -> None:
    """Guards against chats that a key for slow cameras cannot hold; they count as sessions."""
    key, none = keyed.key(frames_per_second=1, sessions=1), keyed.key(sessions=0)
    image = "data:image/jpeg;base64," + base64.b64encode(picture(9)).decode()
    parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": image}}] * 9
    asked = {
        "model": "foretold",
        "messages": [{"role": "user", "content": [*parts, {"type": "text", "text": "?"}]}],
    }
    async with client(keyed.app()) as http:
        for _ in range(2):  # the place is free again
            answer = await http.post("/v1/chat/completions", json=asked, headers=key.headers)
            assert answer.status_code == 200, answer.text
        exceeded(await http.post("/v1/chat/completions", json=asked, headers=none.headers))


@pytest.mark.slow
async def test_each_frame_on_a_socket_gets_one_event(keyed: Keyed) -> None:
    """Guards against frames that vanish, or are answered twice, where some are beyond the rate."""
    key = keyed.key(frames_per_second=4)
    async with served(keyed.app()) as address:
        url = f"ws://{address}/v1/sessions/new/stream?fps=30"
        async with connect(url, additional_headers=key.headers) as socket:
            for _ in range(40):
                await socket.send(picture(10))
            await socket.send('{"type": "ping"}')
            told = await until_type(socket, "frame.", 40)
            kinds = Counter((t["type"], t.get("reason")) for t in told)
            accepted = [t for t in told if t["type"] == "frame.accepted"]
            assert 8 <= len(accepted) < 40
            assert kinds["frame.dropped", "quota"] == 40 - len(accepted)
            assert [t["frame"] for t in accepted] == list(range(len(accepted)))
            assert all(t["seq"] is None for t in told if t["type"] == "frame.dropped")
            await socket.send('{"type": "session.close"}')
            stats = (await until_type(socket, "session.stats", 1))[0]
            assert stats["frames_dropped"] == 40 - len(accepted)


@pytest.mark.slow
async def test_a_numbered_frame_beyond_the_rate_keeps_its_number(keyed: Keyed) -> None:
    """Guards against a number that is used up by a frame that was not taken in."""
    key = keyed.key(frames_per_second=0.5)
    async with served(keyed.app()) as address:
        url = f"ws://{address}/v1/sessions/new/stream"
        async with connect(url, additional_headers=key.headers) as socket:

            async def send(seq: int) -> dict[str, Any]:
                await socket.send(json.dumps({"type": "frame", "seq": seq}))
                await socket.send(picture(10))
                async with asyncio.timeout(10):
                    while True:
                        told: dict[str, Any] = json.loads(await socket.recv())
                        if told["type"] in ("frame.accepted", "frame.dropped", "error"):
                            return told

            assert (await send(1))["type"] == "frame.accepted"
            refused = await send(2)
            assert (refused["type"], refused["code"], refused["seq"]) == (
                "error",
                "quota_exceeded",
                2,
            )
            await asyncio.sleep(2.1)
            assert (await send(2))["type"] == "frame.accepted"


# Bytes.


async def test_bytes_of_a_day(keyed: Keyed) -> None:
    """Guards against bytes that are not counted, and against those counted that never came."""
    key = keyed.key(upload_bytes=20_000)
    upload: dict[str, Any] = {"data": {"purpose": "x"}, "headers": key.headers}
    async with client(keyed.app()) as http:
        for _ in range(2):
            sent = {"file": ("a", bytes(8_000))}
            assert (await http.post("/v1/files", files=sent, **upload)).status_code == 200
        wait_s = exceeded(
            await http.post("/v1/files", files={"file": ("a", bytes(8_000))}, **upload)
        )
        assert 0 < wait_s <= 86_400
        exceeded(await http.post("/v1/files", files={"file": ("a", bytes(30_000))}, **upload), 413)

        async def pieces() -> Any:
            for _ in range(10):
                yield bytes(1000)

        session = await opened(http, key)
        exceeded(
            await http.post(
                f"/v1/sessions/{session}/frames", content=pieces(), headers={**key.headers, **JPEG}
            )
        )
        assert len((await http.get("/v1/files", headers=key.headers)).json()["data"]) == 2
        ended = await http.delete(f"/v1/sessions/{session}", headers=key.headers)
        assert ended.status_code == 200, "what sends nothing goes on"


async def test_uploads_at_once(keyed: Keyed) -> None:
    """Guards against bodies that all find room before any has come."""
    key = keyed.key(upload_bytes=50_000)
    async with client(keyed.app()) as http:
        answers = await asyncio.gather(
            *(
                http.post(
                    "/v1/files",
                    files={"file": ("a", bytes(12_000))},
                    data={"purpose": "x"},
                    headers=key.headers,
                )
                for _ in range(10)
            )
        )
        assert Counter(a.status_code for a in answers) == {200: 4, 429: 6}


async def test_bytes_on_a_socket(keyed: Keyed) -> None:
    frame = picture(10)
    key = keyed.key(upload_bytes=len(frame) * 3 + 10)
    async with served(keyed.app()) as address:
        url = f"ws://{address}/v1/sessions/new/stream?fps=30"
        async with connect(url, additional_headers=key.headers) as socket:
            for _ in range(5):
                await socket.send(frame)
            told = await until_type(socket, "frame.", 5)
            assert Counter(t["type"] for t in told) == {"frame.accepted": 3, "frame.dropped": 2}
            await socket.send(json.dumps({"type": "response.create", "input": "What is there?"}))
            (refused,) = await until_type(socket, "error", 1)
            assert refused["code"] == "quota_exceeded"
            await socket.send('{"type": "session.close"}')
            assert (await until_type(socket, "session.closed", 1))[0]
