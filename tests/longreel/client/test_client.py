"""The Python client against the HTTP API on loopback, on good days and bad ones.

Guards against calls that are lost, doubled or left hanging where a connection breaks or the service
is busy.
"""

from __future__ import annotations

import asyncio
import base64
import io
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from longreel import AsyncClient, Client
from longreel.client import APIError
from longreel.errors import LongreelError, UsageError
from tests.longreel.footage import lights
from tests.longreel.service import Fault, Service
from tests.serve.memory_sessions import MemorySessions
from tests.videos import write_video

pytestmark = pytest.mark.waits


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with Service(tmp_path / "store") as running:
        yield running


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with Client(service.url, patience=20) as made:
        yield made


def frame(brightness: int) -> NDArray[np.uint8]:
    """A grey picture; the model of these tests speaks where it is above 127."""
    return np.full((96, 96, 3), brightness, np.uint8)


def jpeg(brightness: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame(brightness)).save(buffer, "JPEG")
    return buffer.getvalue()


def test_a_session_from_beginning_to_end(client: Client, tmp_path: Path) -> None:
    """Every kind of picture is taken, each gets its outcome, and the block closes the session."""
    path = tmp_path / "bright.png"
    Image.fromarray(frame(255)).save(path)
    with client.session(fps=2, silence_threshold=0.0, memory="window") as session:
        first, second, third = session.push([jpeg(10), path, frame(0)], [0.0, 0.5, 1.0])
        assert (first.accepted, first.frame, first.narration) == (True, 0, None)
        assert first.p_silence is not None
        assert first.p_silence > 0.9
        assert second.narration == "A bright scene at 0.50 s."
        assert (third.seq, third.time_s, third.narration) == (3, 1.0, None)
        (dropped,) = session.push(frame(0), 1.2)
        assert (dropped.accepted, dropped.reason, dropped.frame) == (False, "rate", None)
        answer = session.ask("What is there?")
        assert answer.text == "You asked: What is there? Frames seen: 3."
        assert (answer.status, answer.seq) == ("completed", 5)
        assert session.ask("What is there?", max_tokens=2).status == "length"
        words = list(session.ask_stream("Again?"))
        assert len(words) > 3
        assert "".join(words) == "You asked: Again? Frames seen: 3."
        view = session.view()
        assert (view.frames, view.seq, view.options["fps"]) == (3, 7, 2)
        assert [s.id for s in client.sessions()] == [session.id]
        assert session.cancel() is False
    assert client.sessions() == []


@pytest.mark.slow
def test_a_piece_of_video_is_sampled_by_the_service(client: Client, tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", n_frames=50)
    with client.session(fps=2) as session:
        outcomes = session.push_video(clip.path)
        assert [o.time_s for o in outcomes] == [0.0, 0.5, 1.0, 1.5]
        assert [o.seq for o in session.push_video(clip.path.read_bytes(), wait=False)] == [
            5, 6, 7, 8,
        ]  # fmt: skip


@pytest.mark.slow
def test_events_tell_what_happened_in_order(client: Client) -> None:
    with client.session() as session:
        session.push([frame(255), frame(0)])
        session.ask("Well?")
        session.close()
        events = list(session.events(frames=True))
    assert [e.number for e in events] == list(range(1, len(events) + 1))
    assert [e.type for e in events if e.type.startswith("frame")] == ["frame.seen"] * 2
    assert events[-1].type == "session.closed"
    assert [e for e in session.events() if e.type == "frame.seen"] == []
    assert [e.number for e in session.events(after=events[-2].number)] == [events[-1].number]


@pytest.mark.slow
def test_many_who_follow_events_hold_up_no_other_call(service: Service) -> None:
    """Guards against a bound on connections, which the hundredth follower would use up."""
    with (
        Client(service.url, timeout=2, patience=0) as client,
        client.session(fps=2) as session,
        ExitStack() as open_,
    ):
        session.push(frame(255))
        for _ in range(101):
            events = session.events()
            assert isinstance(events, Generator)
            open_.callback(events.close)
            assert next(events).data["frame"] == 0
        assert [one.id for one in client.sessions()] == [session.id]


@pytest.mark.slow
def test_attaching_leaves_a_session_open(client: Client) -> None:
    """Guards against closing what somebody else opened, and against using their numbers twice."""
    with client.session() as mine:
        mine.push(frame(0))
        with client.session(id=mine.id) as theirs:
            assert theirs.ask("Who?").text == "You asked: Who? Frames seen: 1."
            # The number that this side would take next is the question's.
            (outcome,) = mine.push(frame(255))
            assert outcome.frame == 1
            assert not outcome.repeated
            assert theirs.ask("And?").text == "You asked: And? Frames seen: 2."
            assert mine.ask("Me?").text == "You asked: Me? Frames seen: 2."
            theirs.ask("Between?")
            # Its number was used up, and the frame after it is in already.
            lost, taken = mine.push([frame(0), frame(255)])
            assert (lost.accepted, lost.reason) == (False, "taken")
            assert (taken.accepted, taken.frame) == (True, 2)
        assert mine.view().state == "live"
    with pytest.raises(APIError) as refused:
        client.session(id="nobody")
    assert (refused.value.status, refused.value.code) == (404, "session_not_found")
    with pytest.raises(UsageError, match="fps cannot be set"):
        client.session(id="nobody", fps=2)


@pytest.mark.slow
def test_what_is_refused_says_why(client: Client) -> None:
    with client.session() as session:
        with pytest.raises(APIError) as refused:
            session.push(b"\xff\xd8\xff no picture")
        assert refused.value.status == 400
        assert isinstance(refused.value, LongreelError)
        assert "\n" not in str(refused.value)
        with pytest.raises(UsageError):
            session.push(b"some text")
        with pytest.raises(UsageError):
            session.push(np.zeros((4, 4), np.uint8))
        with pytest.raises(UsageError, match="2 frames with 1 times"):
            session.push([frame(0), frame(0)], [0.0])
        with pytest.raises(UsageError, match="cannot read"):
            session.push_video("nowhere.mp4")
        with pytest.raises(APIError) as refused:
            session.ask(" ")
        assert refused.value.code == "invalid_value"
        # A refusal uses up no number.
        (outcome,) = session.push(frame(255))
        assert outcome.seq == 1
        session.close()
        session.close()
        with pytest.raises(APIError) as refused:
            session.push(frame(0))
        assert (refused.value.status, refused.value.code) == (410, "session_closed")
    with pytest.raises(UsageError, match="no address"):
        Client("localhost:8000")


@pytest.mark.slow
def test_a_reply_that_is_lost_is_asked_for_again_and_applied_once(
    service: Service, client: Client
) -> None:
    """Guards against a frame or question that counts twice because its reply broke off."""
    service.faults += [
        Fault("/v1/sessions", "POST"),
        Fault("/frames", times=2),
        Fault("/responses"),
        Fault("/v1/sessions", "DELETE"),
    ]
    with client.session() as session:
        assert len(client.sessions()) == 1
        first, second = session.push([frame(255), frame(0)])
        assert first.narration == "A bright scene at 0.00 s."
        assert (first.repeated, second.frame) == (True, 1)
        assert session.ask("Once?").text == "You asked: Once? Frames seen: 2."
        view = session.view()
        assert (view.frames, view.seq) == (2, 3)
    assert client.sessions() == []
    assert sum(f.times for f in service.faults) == 0


@pytest.mark.slow
@pytest.mark.parametrize("chunks", range(7))
def test_an_answer_goes_on_where_its_connection_broke(
    service: Service, client: Client, chunks: int
) -> None:
    """Guards against words said twice, or missing, at whatever word the connection breaks."""
    service.faults += [Fault("/responses", after_chunks=chunks), Fault("/events", after_chunks=2)]
    with client.session() as session:
        session.push(frame(0))
        words = list(session.ask_stream("Still there?"))
        assert "".join(words) == "You asked: Still there? Frames seen: 1."
        assert session.view().seq == 2
        assert session.ask("And now?").text == "You asked: And now? Frames seen: 1."
    # The reply begins with its id and goes on with numbered events.
    (*resumed,) = (int(h["last-event-id"]) for h in service.requests("/events"))
    assert len(resumed) == (2 if chunks >= 2 else 0)
    assert len(service.requests("/responses")) == (2 if chunks >= 2 else 3)
    assert resumed == sorted(set(resumed))


@pytest.mark.slow
def test_events_go_on_where_their_connection_broke(service: Service, client: Client) -> None:
    """Guards against events told twice or left out; the service is told the last one we have."""
    with client.session() as session:
        session.push([frame(255)] * 3)
        session.close()
        whole = list(session.events())
        service.faults.append(Fault("/events", times=3, after_chunks=5))
        assert list(session.events()) == whole
    ids = [headers["last-event-id"] for headers in service.requests("/events")]
    assert len(ids) == 5
    assert ids[1:] == sorted(set(ids[1:]), key=int)


@pytest.mark.slow
@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_service_is_asked_again_when_it_says(
    service: Service, client: Client, status: int
) -> None:
    service.faults.append(Fault("/frames", times=1, status=status, retry_after="1"))
    with client.session() as session:
        began = time.monotonic()
        (outcome,) = session.push(frame(255))
        assert time.monotonic() - began >= 1.0
        assert not outcome.repeated
        service.faults.append(Fault("/responses", times=2, status=status))
        assert session.ask("Now?").status == "completed"


@pytest.mark.slow
def test_patience_ends(service: Service) -> None:
    """Guards against a call that never comes back, and against one that hides the reason."""
    service.faults.append(Fault("/v1/models", times=1000, status=503, code="overloaded"))
    told: list[tuple[str, float]] = []

    def on_retry(failure: APIError, seconds: float) -> None:
        told.append((failure.code, seconds))

    with Client(service.url, patience=0.5, on_retry=on_retry) as hasty:
        with pytest.raises(APIError) as refused:
            hasty.models()
        assert (refused.value.status, refused.value.code) == (503, "overloaded")
        assert len(service.requests("/v1/models")) == 1 + len(told) > 1
        assert {code for code, _ in told} == {"overloaded"}
        assert sum(seconds for _, seconds in told) <= 0.5
        service.faults.clear()
        service.faults.append(Fault("/v1/models", times=1, status=429, retry_after="60"))
        before = time.monotonic()
        with pytest.raises(APIError):
            hasty.models()
        assert time.monotonic() - before < 5
        service.stop()
        with pytest.raises(APIError) as refused:
            hasty.models()
        assert (refused.value.status, refused.value.code) == (0, "unreachable")
        assert service.url in str(refused.value)


@pytest.mark.slow
@pytest.mark.parametrize("status", [400, 404, 500, 502])
def test_other_refusals_are_not_asked_again(service: Service, client: Client, status: int) -> None:
    """Guards against hammering a service that will not change its mind."""
    service.faults.append(Fault("/v1/models", times=5, status=status, code="internal_error"))
    with pytest.raises(APIError) as refused:
        client.models()
    assert refused.value.status == status
    assert len(service.requests("/v1/models")) == 1


@pytest.mark.slow
def test_what_may_not_be_repeated_is_not(service: Service, client: Client) -> None:
    """Guards against a second copy of a file whose upload was taken but not answered."""
    service.faults.append(Fault("/v1/files", "POST"))
    with pytest.raises(APIError) as refused:
        client.files.upload(b"\x00\x00\x00\x18ftypmp42", name="a.mp4")
    assert refused.value.code == "connection_lost"
    assert len(client.files.list()) == 1
    # A service that says "not now" has not taken it.
    service.faults.append(Fault("/v1/files", "POST", status=503))
    client.files.upload(b"\x00\x00\x00\x18ftypmp42", name="b.mp4")
    assert len(client.files.list()) == 2


@pytest.mark.slow
def test_a_restart_is_survived_amid_an_answer(tmp_path: Path) -> None:
    """Guards against a question lost, repeated or torn when the service goes and comes back."""
    with (
        Service(tmp_path, MemorySessions(step_s=0.1)) as service,
        Client(service.url, patience=20) as client,
        client.session() as session,
    ):
        session.push(frame(0))
        heard: list[str] = []
        for word in session.ask_stream("Are you there after all of this?"):
            heard.append(word)
            if len(heard) == 2:
                service.stop()
                threading.Timer(1.0, service.start).start()
        assert "".join(heard) == "You asked: Are you there after all of this? Frames seen: 1."
        assert session.push(frame(255))[0].frame == 1


@pytest.mark.slow
def test_threads_share_a_session(tmp_path: Path) -> None:
    """Guards against numbers that overtake each other between one who pushes and one who asks."""
    with (
        Service(tmp_path, MemorySessions(step_s=0.002)) as service,
        Client(service.url, patience=20) as client,
        client.session() as session,
    ):
        answers: list[str] = []

        def asking() -> None:
            answers.extend(session.ask(f"Number {n}?").text for n in range(10))

        other = threading.Thread(target=asking)
        other.start()
        for _ in range(30):
            assert all(o.accepted for o in session.push(frame(0), wait=False))
        other.join(60)
        assert len(answers) == 10
        for n, text in enumerate(answers):
            assert text.startswith(f"You asked: Number {n}?")
        assert session.view().seq == 40


@pytest.mark.slow
def test_a_chat_about_a_video_or_picture(client: Client, tmp_path: Path) -> None:
    """Every way to name a video; what is uploaded for a question does not stay."""
    path = lights(tmp_path / "clip.mp4", [255, 0, 0, 255])
    answer = client.chat(path, "What is there?")
    assert answer.text == "You asked: What is there? Frames seen: 4."
    assert (answer.finish_reason, answer.vision_tokens) == ("stop", 40)
    assert answer.completion_tokens == len(answer.text.split())
    assert client.chat(Path(path).read_bytes(), "Bytes?").text.endswith("Frames seen: 4.")
    assert client.files.list() == []
    name = client.files.upload(path).id
    words = list(client.chat_stream(name, "An id?", max_tokens=3))
    assert "".join(words) == "You asked: An"
    assert len(words) == 3
    again = client.chat(name, "And?", history=[("An id?", "You asked: An")])
    assert again.text == "You asked: And? Frames seen: 4."
    encoded = base64.b64encode(jpeg(0)).decode()
    picture = client.chat(f"data:image/jpeg;base64,{encoded}", "A picture?")
    assert picture.text == "You asked: A picture? Frames seen: 1."
    assert client.chat(None, "Only words?").text == "You wrote: Only words?"
    assert [f.id for f in client.files.list()] == [name]


def test_a_chat_that_fails_leaves_no_file(client: Client, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video at all")
    with pytest.raises(APIError) as refused:
        client.chat(broken, "What is there?")
    assert refused.value.status in (400, 415)
    assert client.files.list() == []
    with pytest.raises(UsageError, match=r"nowhere\.mp4"):
        client.chat("nowhere.mp4", "What is there?")
    with pytest.raises(APIError) as refused:
        client.chat(None, "Who?", model="another")
    assert refused.value.code == "model_not_found"


def test_what_cannot_be_sent_is_wrong_use(client: Client) -> None:
    """Guards against errors of a library about numbers and words that JSON does not have."""
    with pytest.raises(UsageError, match="/v1/sessions"):
        client.session(fps=float("nan"))
    with pytest.raises(UsageError, match=r"caf\\udce9"):
        client.chat(None, "caf\udce9")


def test_a_file_whose_name_is_no_text_is_taken(client: Client, tmp_path: Path) -> None:
    """Guards against a name in another encoding, which is none of the service's concern."""
    path = tmp_path / "caf\udce9.mp4"
    path.write_bytes(b"video")
    uploaded = client.files.upload(path)
    assert client.files.content(uploaded.id) == b"video"


@pytest.mark.parametrize("end", ["closed", "with its client"])
def test_an_abandoned_chat_leaves_no_file(tmp_path: Path, end: str) -> None:
    """Guards against the upload of an answer that nobody reads to its end."""
    path = lights(tmp_path / "clip.mp4", [255])
    with Service(tmp_path / "store", MemorySessions(step_s=0.02)) as service:
        with Client(service.url) as client:
            words = client.chat_stream(path, "What is there?")
            assert isinstance(words, Generator)
            assert next(words) == "You"
            assert len(client.files.list()) == 1
            if end == "closed":
                words.close()
                assert client.files.list() == []
        words.close()
        with Client(service.url) as client:
            assert client.files.list() == []


@pytest.mark.parametrize("end", ["task", "stream", "stream with its client"])
def test_a_chat_that_a_task_leaves_leaves_no_file(tmp_path: Path, end: str) -> None:
    """Guards against the upload of a question whose task is cancelled, also more than once."""
    path = lights(tmp_path / "clip.mp4", [255])

    async def use(service: Service) -> None:
        async with AsyncClient(service.url) as client:
            if end == "task":
                task = asyncio.create_task(client.chat(path, "What is there?"))
                while not service.requests("/v1/chat/completions"):
                    await asyncio.sleep(0.01)
                for _ in range(3):
                    task.cancel()
                    await asyncio.sleep(0)
                await asyncio.gather(task, return_exceptions=True)
                assert task.cancelled()
            else:
                words = client.chat_stream(path, "What is there?")
                assert await anext(words) == "You"
                if end == "stream":
                    await words.aclose()
                    assert await client.files.list() == []
        async with AsyncClient(service.url) as client:
            assert await client.files.list() == []

    with Service(tmp_path / "store", MemorySessions(step_s=0.02)) as service:
        asyncio.run(use(service))


def test_files_are_kept_and_given_back(client: Client, tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", n_frames=10)
    made = client.files.upload(clip.path)
    assert (made.filename, made.bytes) == ("clip.mp4", clip.path.stat().st_size)
    assert client.files.content(made.id) == clip.path.read_bytes()
    assert [f.id for f in client.files.list()] == [made.id]
    assert client.files.get(made.id) == made
    client.files.delete(made.id)
    with pytest.raises(APIError) as refused:
        client.files.get(made.id)
    assert refused.value.code == "file_not_found"


@pytest.mark.slow
def test_the_key_goes_along(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGREEL_SERVER", service.url)
    monkeypatch.setenv("LONGREEL_API_KEY", "from-environment")
    with Client() as client:
        (model,) = client.models()
    assert (model.id, model.fps) == ("longreel-tiny", 2.0)
    with Client(api_key="given") as client:
        client.models()
    sent = [headers["authorization"] for headers in service.requests("/v1/models")]
    assert sent == ["Bearer from-environment", "Bearer given"]


@pytest.mark.slow
def test_the_same_in_an_event_loop(service: Service, tmp_path: Path) -> None:
    """Guards the asyncio client, which carries out the same steps, on lost replies as well."""
    service.faults += [
        Fault("/frames"),
        Fault("/responses", after_chunks=3),
        Fault("/events", after_chunks=3),
    ]

    async def use() -> None:
        async with AsyncClient(service.url, patience=20) as client:
            assert (await client.models())[0].id == "longreel-tiny"
            async with client.session(fps=2) as session:
                (outcome,) = await session.push(frame(255))
                assert outcome.narration == "A bright scene at 0.00 s."
                words = [word async for word in session.ask_stream("Async?")]
                assert "".join(words) == "You asked: Async? Frames seen: 1."
                first, second = await asyncio.gather(session.ask("A?"), session.ask("B?"))
                assert {first.text.split()[2], second.text.split()[2]} == {"A?", "B?"}
                assert (await session.view()).seq == 4
                assert not await session.cancel()
                attached = await client.session(id=session.id)
                assert attached.opened.frames == 1
            assert await client.sessions() == []
            events = [event async for event in session.events()]
            assert [e.number for e in events][-1] == events[-1].number
            assert events[-1].type == "session.closed"
            path = lights(tmp_path / "clip.mp4", [0, 255])
            chat = client.chat_stream(path, "A chat?")
            assert "".join([w async for w in chat]) == "You asked: A chat? Frames seen: 2."
            assert (await client.chat(path, "Again?")).vision_tokens == 20
            made = await client.files.upload(path)
            assert [f.id for f in await client.files.list()] == [made.id]
            await client.files.delete(made.id)

    asyncio.run(use())
    assert sum(f.times for f in service.faults) == 0


@pytest.mark.slow
def test_a_cancelled_task_leaves_the_session_usable(tmp_path: Path) -> None:
    """Guards against a turn that a cancelled push keeps for ever, and against its lost number."""

    async def use(service: Service) -> None:
        async with AsyncClient(service.url) as client, client.session() as session:
            task = asyncio.create_task(session.push([frame(255)] * 20))
            await asyncio.sleep(0.3)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert task.cancelled()
            (outcome,) = await session.push(frame(0), wait=False)
            assert (outcome.seq, outcome.repeated) == (21, False)

    with Service(tmp_path, MemorySessions(step_s=0.05)) as service:
        asyncio.run(use(service))


class _MemoryJobs:
    """Jobs that have succeeded when they are looked at for the third time."""

    def __init__(self) -> None:
        self._jobs: dict[str, dict[str, Any]] = {}
        self._looks = 0

    async def submit(self, wanted: dict[str, Any]) -> dict[str, Any]:
        made = {
            "id": wanted["job_id"] or "job-1",
            "object": "job",
            "status": "running",
            "created": 1767225600,
            "output": wanted["output"],
            "progress": None,
            "error": None,
        }
        self._jobs[made["id"]] = made
        return made

    async def list(self) -> list[dict[str, Any]]:
        return [*self._jobs.values()]

    async def get(self, job: str) -> dict[str, Any] | None:
        self._looks += 1
        if job in self._jobs and self._looks == 3:
            self._jobs[job]["status"] = "succeeded"
        return self._jobs.get(job)

    async def cancel(self, job: str) -> dict[str, Any] | None:
        if job in self._jobs:
            self._jobs[job]["status"] = "cancelled"
        return self._jobs.get(job)


@pytest.mark.slow
def test_jobs_are_begun_waited_for_and_cancelled(tmp_path: Path) -> None:
    with Service(tmp_path, jobs=_MemoryJobs()) as service, Client(service.url) as client:
        made = client.jobs.submit("videos/", "rows", job_id="nightly", fps=1)
        assert (made.id, made.status, made.data["output"]) == ("nightly", "running", "rows")
        done = client.jobs.wait("nightly", poll=0.05)
        assert done.status == "succeeded"
        assert [job.id for job in client.jobs.list()] == ["nightly"]
        other = client.jobs.submit(["a.mp4", "b.mp4"], "rows")
        assert client.jobs.cancel(other.id).status == "cancelled"
        with pytest.raises(APIError) as refused:
            client.jobs.get("nobody")
        assert refused.value.status == 404
        with pytest.raises(APIError) as refused:
            client.jobs.submit("a.mp4", "rows", colour="red")
        assert refused.value.status == 422
