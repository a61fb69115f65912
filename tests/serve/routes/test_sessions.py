"""Sessions over HTTP: what is taken in, what is refused and leaves nothing, and who may vanish.

Guards against a reply that says more or less than what was taken in, and refusals that leave
something.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve.live.items import MOST_CHARACTERS, SessionError
from serve.routes import sse
from serve.routes.bodies import MOST_FRAMES, MOST_JSON_BYTES
from tests.serve.memory_sessions import MemorySessions
from tests.serve.routes_server import application, client, form, picture, served, until
from tests.videos import write_video

pytestmark = pytest.mark.anyio
JPEG = {"content-type": "image/jpeg"}


@pytest.fixture
def sessions() -> MemorySessions:
    return MemorySessions(side=96)


@pytest.fixture
async def api(sessions: MemorySessions) -> AsyncIterator[httpx.AsyncClient]:
    """A client, and a session ``door`` that it opened."""
    async with client(application(sessions, max_upload_bytes=2**20, max_pixels=10_000)) as opened:
        assert (await opened.post("/v1/sessions", json={"id": "door"})).status_code == 201
        yield opened


def parsed(stream: str) -> list[tuple[str | None, str, Any]]:
    """(id, event, data) of server-sent events."""
    found = []
    for block in stream.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line[0] != ":")
        if fields:
            found.append((fields.get("id"), fields["event"], json.loads(fields["data"])))
    return found


async def test_a_session_is_opened_shown_listed_and_ended(api: httpx.AsyncClient) -> None:
    wanted = {
        "id": "yard",
        "instructions": "Count.",
        "fps": 4,
        "silence_threshold": 0.3,
        "memory": {"policy": "retrieve", "frames": 64},
        "max_tokens": 7,
        "kept": True,
    }
    made = (await api.post("/v1/sessions", json=wanted)).json()
    assert made["object"] == "session"
    assert made["options"] == {k: v for k, v in wanted.items() if k != "id"}
    assert (made["seq"], made["frames"], made["last_event"]) == (0, 0, 0)
    assert (await api.get("/v1/sessions/yard")).json() == made
    assert {s["id"] for s in (await api.get("/v1/sessions")).json()["data"]} == {"door", "yard"}
    gone = await api.delete("/v1/sessions/yard")
    assert gone.json() == {"id": "yard", "object": "session", "deleted": True}
    assert [s["id"] for s in (await api.get("/v1/sessions")).json()["data"]] == ["door"]
    assert (await api.post("/v1/sessions")).json()["options"]["fps"] == 2.0


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/v1/sessions", "/v1/streams"])
async def test_an_id_that_no_directory_takes_is_refused_with_its_field(
    path: str, api: httpx.AsyncClient
) -> None:
    """Guards against a page of the API that promises ids which then end in an error elsewhere."""
    source = {"url": "rtsp://camera.example.org/door"} if "streams" in path else {}
    for name in ("door.1", "_door", "a" * 65, "", "a/b", "door\n"):
        refused = await api.post(path, json={"id": name, **source})
        assert (refused.status_code, refused.json()["error"]["param"]) == (422, "id"), name
    assert (await api.post("/v1/sessions", json={"id": "A-b_9" + "a" * 59})).status_code == 201


async def test_a_reply_carries_the_outcomes_of_exactly_the_frames_accepted(
    api: httpx.AsyncClient,
) -> None:
    """Guards against outcomes of frames that were dropped, or of somebody else's."""
    await api.post("/v1/sessions/door/frames", files=form(255))
    times = json.dumps([0.5, 0.6, 1.0, 0.9, None])
    reply = await api.post(
        "/v1/sessions/door/frames", files=form(10, 255, 200, 0, 0), data={"times": times, "seq": 2}
    )
    told = reply.json()
    assert reply.status_code == 200
    assert [(r["seq"], r["outcome"], r["reason"], r["frame"]) for r in told["receipts"]] == [
        (2, "accepted", None, 1),
        (3, "dropped", "rate", None),
        (4, "accepted", None, 2),
        (5, "dropped", "late", None),
        (6, "accepted", None, 3),
    ]
    assert [(o["frame"], o["time_s"], o["narration"]) for o in told["outcomes"]] == [
        (1, 0.5, None),
        (2, 1.0, "A bright scene at 1.00 s."),
        (3, 1.5, None),
    ]
    assert told["outcomes"][1]["p_silence"] == pytest.approx(1 - 200 / 255, abs=0.01)


async def test_without_wait_the_reply_comes_before_the_model(
    api: httpx.AsyncClient, sessions: MemorySessions
) -> None:
    sessions.step_s = 60.0
    reply = await api.post("/v1/sessions/door/frames?wait=false", content=picture(9), headers=JPEG)
    assert reply.status_code == 202
    assert set(reply.json()) == {"object", "receipts"}
    assert (await sessions.view("door")).waiting_frames == 1
    await sessions.close("door")


async def test_frames_sent_again_are_answered_as_before(
    api: httpx.AsyncClient, sessions: MemorySessions
) -> None:
    """Guards a retry after a lost reply: nothing is applied twice, and nothing is waited for."""
    send = {"files": form(200, 0), "data": {"seq": "1"}}
    first = (await api.post("/v1/sessions/door/frames", **send)).json()  # type: ignore[arg-type]
    again = (await api.post("/v1/sessions/door/frames", **send)).json()  # type: ignore[arg-type]
    assert [r["repeated"] for r in again["receipts"]] == [True, True]
    assert again["outcomes"] == first["outcomes"]
    assert (await sessions.view("door")).frames == 2
    # Half known, half new.
    more = (await api.post("/v1/sessions/door/frames?seq=2", files=form(0, 255))).json()
    assert [(r["seq"], r["repeated"]) for r in more["receipts"]] == [(2, True), (3, False)]
    assert [o["frame"] for o in more["outcomes"]] == [1, 2]


async def test_a_gap_is_refused(api: httpx.AsyncClient, sessions: MemorySessions) -> None:
    """Guards against frames that were lost on the way and are not missed."""
    reply = await api.post("/v1/sessions/door/frames?seq=2", content=picture(9), headers=JPEG)
    assert (reply.status_code, reply.json()["error"]["code"]) == (409, "sequence_gap")
    assert (await sessions.view("door")).seq == 0


@pytest.mark.slow
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
async def test_a_body_of_one_picture(api: httpx.AsyncClient, format_: str) -> None:
    reply = await api.post(
        "/v1/sessions/door/frames?time_s=7.5",
        content=picture(255, format_=format_),
        headers={"content-type": f"image/{format_.lower()}"},
    )
    (outcome,) = reply.json()["outcomes"]
    assert outcome["time_s"] == 7.5
    assert outcome["narration"] == "A bright scene at 7.50 s."


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "suffix"), [("video/mp4", "mp4"), ("video/webm", "webm")])
async def test_a_piece_of_video_is_sampled_at_the_session_s_fps(
    api: httpx.AsyncClient, tmp_path: Path, kind: str, suffix: str
) -> None:
    await api.post("/v1/sessions", json={"id": "fast", "fps": 5})
    codec = "libx264" if suffix == "mp4" else "libvpx"
    clip = write_video(tmp_path / f"piece.{suffix}", codec, n_frames=50)
    piece = {"content": clip.path.read_bytes(), "headers": {"content-type": kind}}
    for name, fps in (("fast", 5), ("door", 2)):
        path = f"/v1/sessions/{name}/frames"
        first = (await api.post(path, params={"time_s": 30}, **piece)).json()  # type: ignore[arg-type]
        times = [o["time_s"] for o in first["outcomes"]]
        assert times == pytest.approx([30 + n / fps for n in range(2 * fps)])
        after = (await api.post(path, **piece)).json()  # type: ignore[arg-type]
        assert after["outcomes"][0]["time_s"] == pytest.approx(32)
        assert [r["seq"] for r in after["receipts"]] == list(range(2 * fps + 1, 4 * fps + 1))


_BAD: dict[str, tuple[dict[str, Any], int, str]] = {
    "not a picture": ({"content": b"hello", "headers": JPEG}, 415, "unsupported_media_type"),
    "damaged": ({"content": picture(9)[:200], "headers": JPEG}, 400, "media_error"),
    "too many pixels": ({"content": picture(9, 101), "headers": JPEG}, 413, "media_too_large"),
    "empty": ({"content": b"", "headers": JPEG}, 400, "invalid_frame"),
    "no type": ({"content": picture(9)}, 415, "unsupported_media_type"),
    "JSON": ({"json": {"frames": []}}, 415, "unsupported_media_type"),
    "one of three": (
        {"files": [*form(9, 9), ("frames", ("x", b"no"))]},
        415,
        "unsupported_media_type",
    ),
    "no boundary": (
        {"content": b"x", "headers": {"content-type": "multipart/form-data"}},
        400,
        "invalid_value",
    ),
    "a broken form": (
        {"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=y"}},
        400,
        "invalid_value",
    ),
    "no frames": ({"files": {"times": (None, "[]")}}, 400, "invalid_frame"),
    "frames as text": ({"files": {"frames": (None, "abc")}}, 400, "invalid_value"),
    "an unknown field": ({"files": form(9), "data": {"time": "[1]"}}, 400, "invalid_value"),
    "times of fewer": ({"files": form(9, 9), "data": {"times": "[1]"}}, 400, "invalid_value"),
    "times no list": ({"files": form(9), "data": {"times": "1"}}, 400, "invalid_value"),
    "times no JSON": ({"files": form(9), "data": {"times": "[" * 9999}}, 400, "invalid_value"),
    "a time NaN": ({"files": form(9), "data": {"times": "[NaN]"}}, 400, "invalid_value"),
    "a negative time": ({"files": form(9), "data": {"times": "[-1]"}}, 400, "invalid_value"),
    "seq no number": ({"files": form(9), "data": {"seq": "one"}}, 400, "invalid_value"),
    "seq 0": ({"files": form(9), "data": {"seq": "0"}}, 400, "invalid_value"),
    "seq without end": ({"files": form(9), "data": {"seq": "9" * 9999}}, 400, "invalid_value"),
    "seq in the query": ({"files": form(9), "params": {"seq": "0"}}, 422, "invalid_value"),
    "time in the query": ({"files": form(9), "params": {"time_s": "inf"}}, 422, "invalid_value"),
    "too many frames": (
        {"files": [("frames", ("x", b"x"))] * (MOST_FRAMES + 1)},
        400,
        "invalid_value",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", _BAD)
async def test_malformed_frames_leave_nothing(
    api: httpx.AsyncClient, sessions: MemorySessions, what: str
) -> None:
    """Guards against half a request taken in, and against a 500 that a client can cause."""
    request, status, code = _BAD[what]
    reply = await api.post("/v1/sessions/door/frames", **request)
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)
    assert (await sessions.view("door")).seq == 0
    good = await api.post("/v1/sessions/door/frames", files=form(9))
    assert good.status_code == 200


@pytest.mark.parametrize("declared", [True, False])
async def test_an_upload_ends_at_the_bound(
    api: httpx.AsyncClient, sessions: MemorySessions, declared: bool
) -> None:
    """Guards memory: no more than the bound is read, whether or not the length was declared."""
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while taken < 2**26:
            taken += 2**16
            yield bytes(2**16)

    headers = {**JPEG, **({"content-length": str(2**26)} if declared else {})}
    reply = await api.post("/v1/sessions/door/frames", content=endless(), headers=headers)
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "media_too_large")
    assert taken <= (0 if declared else 2**20 + 2 * 2**16)
    assert (await sessions.view("door")).seq == 0


async def test_a_form_and_a_question_end_at_their_bounds(api: httpx.AsyncClient) -> None:
    """Guards the readers that are not ours: the form's and FastAPI's."""
    big = await api.post("/v1/sessions/door/frames", files={"frames": ("x", bytes(2**21))})
    assert (big.status_code, big.json()["error"]["code"]) == (413, "media_too_large")

    async def endless() -> AsyncIterator[bytes]:
        yield b'{"input": "'
        for _ in range(MOST_JSON_BYTES // 2**10 + 1):
            yield b"x" * 2**10

    headers = {"content-type": "application/json"}
    reply = await api.post("/v1/sessions/door/responses", content=endless(), headers=headers)
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "media_too_large")


@pytest.mark.slow
async def test_requests_at_once_are_all_taken_in(
    api: httpx.AsyncClient, sessions: MemorySessions
) -> None:
    """Guards against outcomes that go to another request."""
    replies = await asyncio.gather(
        *(api.post("/v1/sessions/door/frames", files=form(*[20 * n] * 3)) for n in range(1, 9))
    )
    receipts = [r for reply in replies for r in reply.json()["receipts"]]
    assert sorted(r["seq"] for r in receipts) == list(range(1, 25))
    for n, reply in enumerate(replies, 1):
        told = reply.json()
        assert [o["frame"] for o in told["outcomes"]] == [r["frame"] for r in told["receipts"]]
        for outcome in told["outcomes"]:
            assert outcome["p_silence"] == pytest.approx(1 - 20 * n / 255, abs=0.01)


async def test_a_question_is_answered(api: httpx.AsyncClient) -> None:
    await api.post("/v1/sessions/door/frames", files=form(0, 0))
    path = "/v1/sessions/door/responses"
    told = (await api.post(path, json={"input": "How many?", "seq": 3})).json()
    assert told == {
        "id": "door-response-3",
        "object": "response",
        "session": "door",
        "seq": 3,
        "status": "completed",
        "output_text": "You asked: How many? Frames seen: 2.",
        "usage": {"output_tokens": 7},
        "repeated": False,
    }
    again = (await api.post(path, json={"input": "How many?", "seq": 3})).json()
    assert again == {**told, "repeated": True}
    cut = (await api.post(path, json={"input": "How many?", "max_output_tokens": 2})).json()
    assert (cut["status"], cut["output_text"]) == ("length", "You asked:")
    taken = await api.post(path, json={"input": "How many?", "seq": 1})
    assert (taken.status_code, taken.json()["error"]["code"]) == (400, "invalid_value")


async def test_an_answer_is_streamed_word_by_word(api: httpx.AsyncClient) -> None:
    path, asked = "/v1/sessions/door/responses", {"input": "Why?", "stream": True, "seq": 1}
    reply = await api.post(path, json=asked)
    assert reply.headers["content-type"].startswith("text/event-stream")
    told = parsed(reply.text)
    assert [event for _, event, _ in told] == [
        "response.created",
        *["response.delta"] * 6,
        "response.done",
    ]
    assert told[0][2]["status"] == "in_progress"
    done = told[-1][2]
    assert "".join(d["delta"] for _, e, d in told if e == "response.delta") == done["output_text"]
    assert (done["id"], done["status"]) == (told[0][2]["id"], "completed")
    # Sent again, it is told again and not asked again.
    again = parsed((await api.post(path, json=asked)).text)
    assert again[0][2]["repeated"] is True
    assert again[1:-1] == told[1:-1]
    assert again[-1][2] == {**done, "repeated": True}


async def test_asking_while_the_model_narrates(
    api: httpx.AsyncClient, sessions: MemorySessions
) -> None:
    """Guards the order: the narration ends, then the answer comes, each whole."""
    sessions.step_s = 0.01
    await api.post("/v1/sessions/door/frames?wait=false", files=form(255, 255))
    told = (await api.post("/v1/sessions/door/responses", json={"input": "Now?"})).json()
    assert told["output_text"] == "You asked: Now? Frames seen: 2."
    types = [e.type for e in await sessions.events("door", 0, 0)]
    assert types.index("response.created") > max(
        n for n, type_ in enumerate(types) if type_ == "narration"
    )


@pytest.mark.slow
async def test_cancelling_what_is_said_and_what_waits(
    api: httpx.AsyncClient, sessions: MemorySessions
) -> None:
    assert (await api.post("/v1/sessions/door/cancel")).json()["cancelled"] is False
    sessions.step_s = 0.3
    await api.post("/v1/sessions/door/frames?wait=false", content=picture(255), headers=JPEG)
    waits = asyncio.create_task(api.post("/v1/sessions/door/responses", json={"input": "Well?"}))
    await until(lambda: len(sessions._sessions["door"]._events) >= 2)  # it has begun to narrate
    cancel = await api.post("/v1/sessions/door/responses/door-response-2/cancel")
    assert cancel.json() == {"object": "cancel", "session": "door", "cancelled": True}
    assert (await api.post("/v1/sessions/door/cancel")).json()["cancelled"] is True
    answer = (await waits).json()
    assert (answer["status"], answer["output_text"]) == ("cancelled", "")
    (said,) = [e.data for e in await sessions.events("door") if e.type == "narration"]
    assert said["cancelled"] is True
    assert "A bright scene at 0.00 s.".startswith(said["text"])
    assert (await sessions.view("door")).frames == 1


async def test_events_resume_after_the_last_one(api: httpx.AsyncClient) -> None:
    """Guards against events told twice or never to a client that comes back."""
    await api.post("/v1/sessions/door/frames", files=form(0, 255))
    await api.delete("/v1/sessions/door")
    path = "/v1/sessions/door/events"
    everything = parsed((await api.get(path, params={"frames": True})).text)
    assert [number for number, _, _ in everything] == [str(n + 1) for n in range(len(everything))]
    assert [event for _, event, _ in everything] == [
        "frame.seen",
        "frame.seen",
        *["narration.delta"] * 6,
        "narration",
        "session.closed",
    ]
    talk = parsed((await api.get(path)).text)
    assert talk == [told for told in everything if told[1] != "frame.seen"]
    rest = await api.get(path, headers={"Last-Event-ID": "5"}, params={"after": 1})
    assert parsed(rest.text) == everything[5:]
    assert parsed((await api.get(path, params={"after": 7})).text) == everything[7:]
    assert parsed((await api.get(path, params={"after": len(everything)})).text) == []


async def test_a_silent_stream_is_kept_open_and_a_listener_may_vanish(
    sessions: MemorySessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against proxies that cut, and against tasks that a listener leaves behind."""
    monkeypatch.setattr(sse, "KEEP_ALIVE_S", 0.05)
    async with served(application(sessions)) as address, httpx.AsyncClient() as api:
        await api.post(f"http://{address}/v1/sessions", json={"id": "door"})
        before = len(asyncio.all_tasks())
        async with api.stream("GET", f"http://{address}/v1/sessions/door/events") as reply:
            lines = reply.aiter_lines()
            assert await anext(lines) == ": open"
            assert await anext(lines) == ""
            assert await anext(lines) == ": keep-alive"
            await api.post(f"http://{address}/v1/sessions/door/frames", files=form(255))
            async with asyncio.timeout(20):
                while await anext(lines) != "event: narration.delta":
                    pass
        # The connection was closed in the middle of the stream.
        await until(lambda: len(asyncio.all_tasks()) <= before)
        assert (await sessions.view("door")).state == "live"
        after = await api.post(f"http://{address}/v1/sessions/door/frames", files=form(0))
        assert after.json()["receipts"][0]["seq"] == 2


@pytest.mark.slow
async def test_who_vanishes_while_waiting_leaves_frames_and_question(
    sessions: MemorySessions, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards against calls that wait for nobody, against work that is lost with a client, and
    against alarms for clients that leave."""
    monkeypatch.setattr("serve.routes.sessions._LOOK_S", 0.05)
    async with served(application(sessions)) as address:
        async with httpx.AsyncClient(base_url=f"http://{address}") as api:
            await api.post("/v1/sessions", json={"id": "door"})
            sessions.step_s = 60.0
        before = len(asyncio.all_tasks())
        short = httpx.AsyncClient(base_url=f"http://{address}", timeout=httpx.Timeout(20, read=1))
        with pytest.raises(httpx.ReadTimeout):
            await short.post("/v1/sessions/door/frames", files=form(0, 0))
        with pytest.raises(httpx.ReadTimeout):
            await short.post("/v1/sessions/door/responses", json={"input": "Well?"})
        with pytest.raises(httpx.ReadTimeout):
            await short.post("/v1/sessions/door/responses", json={"input": "Well?", "stream": True})
        await short.aclose()
        # One more: the session's own, which works on what was given.
        await until(lambda: len(asyncio.all_tasks()) <= before + 1)
        assert "ended in 5" not in caplog.text
        sessions.step_s = 0.0
        await until(lambda: len(asyncio.all_tasks()) <= before)
        done = [e for e in await sessions.events("door") if e.type == "response.done"]
        assert [e.data["text"] for e in done] == ["You asked: Well? Frames seen: 2."] * 2


async def test_a_session_closed_while_someone_waits(
    api: httpx.AsyncClient, sessions: MemorySessions
) -> None:
    """Guards against a reply that never comes."""
    sessions.step_s = 60.0
    frames = asyncio.create_task(api.post("/v1/sessions/door/frames", files=form(0)))
    asked = asyncio.create_task(api.post("/v1/sessions/door/responses", json={"input": "?"}))
    streamed = asyncio.create_task(
        api.post("/v1/sessions/door/responses", json={"input": "?", "stream": True})
    )
    await until(lambda: len(sessions._sessions["door"]._receipts) == 3)
    await api.delete("/v1/sessions/door")
    for reply in (await frames, await asked, await api.delete("/v1/sessions/door")):
        assert (reply.status_code, reply.json()["error"]["code"]) == (410, "session_closed")
    _, event, data = parsed((await streamed).text)[-1]
    assert (event, data["error"]["code"]) == ("error", "session_closed")


async def test_a_session_that_is_not_there(api: httpx.AsyncClient) -> None:
    for method, path in (
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/frames"),
        ("POST", "/cancel"),
        ("POST", "/responses/r/cancel"),
        ("GET", "/events"),
    ):
        files = form(0) if path == "/frames" else None
        reply = await api.request(method, f"/v1/sessions/nobody{path}", files=files)
        assert (reply.status_code, reply.json()["error"]["code"]) == (404, "session_not_found")
    reply = await api.post("/v1/sessions/nobody/responses", json={"input": "?"})
    assert reply.json()["error"]["code"] == "session_not_found"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"fps": 0}, "fps"),
        ({"fps": 1e-308}, "fps"),
        ({"fps": "NaN"}, "fps"),
        ({"silence_threshold": 2}, "silence_threshold"),
        ({"memory": {"frames": 33}}, "memory.frames"),
        ({"memory": {"policy": "all"}}, "memory.policy"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"id": "a/b"}, "id"),
        ({"id": "new"}, "id"),
        ({"instruction": "misspelt"}, "instruction"),
        ({"instructions": "x" * 4097}, "instructions"),
    ],
)
async def test_options_that_cannot_work(
    api: httpx.AsyncClient, options: dict[str, Any], param: str
) -> None:
    """Guards against a session that is opened and can only fail, such as on frames so far apart
    that their times are no numbers."""
    reply = await api.post("/v1/sessions", json=options)
    error = reply.json()["error"]
    assert (reply.status_code, error["type"]) == (422, "invalid_request_error")
    assert (error["code"], error["param"]) == ("invalid_value", param)


async def test_a_question_is_as_long_as_the_page_says(api: httpx.AsyncClient) -> None:
    """Guards against a bound in the API's description that sessions do not keep."""
    schema = (await api.get("/openapi.json")).json()["components"]["schemas"]["Ask"]
    assert schema["properties"]["input"]["maxLength"] == MOST_CHARACTERS
    reply = await api.post("/v1/sessions/door/responses", json={"input": "x" * 4097})
    assert (reply.status_code, reply.json()["error"]["param"]) == (422, "input")


async def test_when_the_service_cannot_at_present(
    api: httpx.AsyncClient, sessions: MemorySessions
) -> None:
    """Guards what clients retry by: the status, the code, and when."""
    sessions.most_sessions = 1
    full = await api.post("/v1/sessions", json={})
    assert (full.status_code, full.json()["error"]["type"]) == (429, "rate_limit_error")
    assert full.json()["error"]["code"] == "overloaded"
    assert int(full.headers["retry-after"]) > 0
    assert (await api.get("/readyz")).status_code == 200
    sessions.refusal = SessionError("unavailable", "no replica answers")
    for method, path in (("GET", "/v1/sessions/door"), ("GET", "/readyz")):
        lost = await api.request(method, path)
        assert (lost.status_code, lost.json()["error"]["type"]) == (503, "server_error")
        assert lost.json()["error"]["code"] == "unavailable"
        assert int(lost.headers["retry-after"]) > 0
    assert (await api.get("/healthz")).json() == {"status": "ok"}


async def test_what_was_kept_and_the_cluster_are_refused_by_name(api: httpx.AsyncClient) -> None:
    """Guards against a failure of the service where there is only nothing to tell."""
    kept = await api.get("/v1/sessions/door/kept?frame=0")
    assert (kept.status_code, kept.json()["error"]["code"]) == (400, "invalid_value")
    assert (await api.get("/v1/sessions/door/kept?frame=-1")).status_code == 422
    assert (await api.get("/v1/sessions/nobody/kept?frame=0")).status_code == 404
    cluster = await api.get("/v1/cluster")
    assert (cluster.status_code, cluster.json()["error"]["code"]) == (503, "unavailable")
