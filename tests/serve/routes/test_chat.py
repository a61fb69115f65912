"""Chat completions through the official ``openai`` client, on a real server of this process.

Guards against an answer or error that OpenAI's own client does not take, and files that stay
behind.
"""

from __future__ import annotations

import asyncio
import base64
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from mod.summarizing import by_rule, plain_lines
from serve.chat import Answered
from serve.live.items import (
    Frame,
    Input,
    Question,
    Receipt,
    SessionError,
    SessionEvent,
    SessionOptions,
    SessionView,
)
from serve.routes import chat, fetching, watching
from serve.routes.app import build
from serve.routes.completions import asks_for_summary
from serve.routes.context import ApiSettings, Context
from tests.serve.decoding.test_media import encoded
from tests.serve.memory_sessions import MemorySessions
from tests.serve.pieces import piece_frames
from tests.serve.served import MODEL, WordAnswers, served
from tests.videos import draw, read_number, write_recording, write_video, x264

pytestmark = pytest.mark.waits

QUESTION = "What happens in this video?"


@dataclass
class Recorded(MemorySessions):
    """Sessions that note what they were given."""

    options: list[SessionOptions] = field(default_factory=list)
    calls: list[list[tuple[Input, Receipt]]] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    unseen: list[int] = field(default_factory=list)  # frames that waited when a session closed

    async def open(self, options: SessionOptions, session: str | None = None) -> SessionView:
        self.options.append(options)
        return await super().open(options, session)

    async def give(
        self, session: str, inputs: Sequence[Input], seq: int | None = None
    ) -> list[Receipt]:
        receipts = await super().give(session, inputs, seq)
        self.calls.append(list(zip(inputs, receipts, strict=True)))
        return receipts

    async def close(self, session: str) -> None:
        self.unseen.append((await self.view(session)).waiting_frames)
        await super().close(session)
        self.closed.append(session)

    @property
    def frames(self) -> list[Frame]:
        """Those accepted, in order."""
        return [
            given
            for call in self.calls
            for given, receipt in call
            if isinstance(given, Frame) and receipt.outcome == "accepted"
        ]

    @property
    def questions(self) -> list[str]:
        return [question.text for question in self.asked]

    @property
    def asked(self) -> list[Question]:
        return [given for call in self.calls for given, _ in call if isinstance(given, Question)]


class DigestAnswers(WordAnswers):
    """Answers as a replica whose checkpoint makes summaries by rule."""

    async def chat(self, system: str, text: str, most_tokens: int) -> Answered:
        return await super().chat(system, by_rule(plain_lines(text)), most_tokens)


@dataclass
class Service:
    address: str
    client: openai.OpenAI
    sessions: Recorded

    def ask(self, *parts: Any, **options: Any) -> Any:
        return self.client.chat.completions.create(
            model=MODEL.name, messages=[{"role": "user", "content": list(parts)}], **options
        )

    def wait_closed(self) -> None:
        deadline = time.monotonic() + 5
        while len(self.sessions.closed) < len(self.sessions.options):
            assert time.monotonic() < deadline, "a session is open still"
            time.sleep(0.01)


class Services:
    """Makes services that end with the test."""

    def __init__(self, store: Path) -> None:
        self._store, self._opened = store, ExitStack()

    def __call__(self, sessions: Recorded | None = None, **changes: Any) -> Service:
        sessions = sessions or Recorded(side=MODEL.side)
        model = replace(MODEL, **changes.pop("model", {}))
        answers = DigestAnswers() if model.digest else WordAnswers()
        context = Context(sessions, answers, model, str(self._store), ApiSettings(**changes))
        address = self._opened.enter_context(served(build(context)))
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
        self._opened.callback(client.close)
        return Service(address, client, sessions)

    def close(self) -> None:
        self._opened.close()


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    made = Services(tmp_path / "store")
    yield made
    made.close()


@pytest.fixture
def clip(tmp_path: Path) -> bytes:
    """4 s: pictures 0, 12, 25, ... at 2 fps."""
    return write_video(tmp_path / "clip.mp4", options=x264()).path.read_bytes()


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def video(data: bytes | str) -> dict[str, Any]:
    return {"type": "video_url", "video_url": {"url": _url(data, "video/mp4")}}


def image(data: bytes | str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": _url(data, "image/png"), "detail": "low"}}


def _url(data: bytes | str, kind: str) -> str:
    if isinstance(data, str):
        return data
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


@pytest.mark.slow
def test_text_alone(services: Services) -> None:
    service = services()
    messages: Any = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "one two"},
    ]
    whole = service.client.chat.completions.create(model=MODEL.name, messages=messages)
    assert whole.choices[0].message.content == "Be brief.|one two"
    assert whole.choices[0].finish_reason == "stop"
    assert whole.usage is not None
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (4, 3)
    assert whole.usage.total_tokens == 7
    cut = service.client.chat.completions.create(
        model=MODEL.name, messages=messages, max_tokens=2, temperature=0.3, seed=1
    )
    assert cut.choices[0].message.content == "Be brief.|one"
    assert cut.choices[0].finish_reason == "length"
    streamed = list(
        service.client.chat.completions.create(model=MODEL.name, messages=messages, stream=True)
    )
    assert "".join(c.choices[0].delta.content or "" for c in streamed) == "Be brief.|one two"
    assert streamed[-1].choices[0].finish_reason == "stop"
    assert service.sessions.options == []


@pytest.mark.parametrize("role", ["user", "assistant", "system"])
def test_text_is_bounded_before_a_replica_reads_it(services: Services, role: str) -> None:
    """Guards all sessions of a replica against text that it would read for minutes."""
    service = services()
    messages: Any = [
        {"role": role, "content": "word " * 2000},
        {"role": role, "content": "word " * 2000},
        {"role": "user", "content": "Why?"},
    ]
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match="characters in all") as refused:
            service.client.chat.completions.create(
                model=MODEL.name, messages=messages, stream=stream
            )
        assert refused.value.code == "context_length_exceeded"
    beside: Any = [{"role": "user", "content": [video(b"x"), text("?" * 4097)]}]
    with pytest.raises(openai.BadRequestError, match="4096 characters in all"):
        service.client.chat.completions.create(model=MODEL.name, messages=beside)
    messages[:2] = [{"role": role, "content": "word " * 400}] * 2
    said = service.client.chat.completions.create(model=MODEL.name, messages=messages)
    assert said.choices[0].message.content


@pytest.mark.slow
def test_a_video_is_seen_then_asked_about(services: Services, clip: bytes) -> None:
    """Guards the pixels, their times, and what the session is told to be."""
    service = services()
    messages: Any = [
        {"role": "system", "content": "Watch closely."},
        {"role": "user", "content": [text(QUESTION), video(clip)]},
    ]
    told = service.client.chat.completions.create(model=MODEL.name, messages=messages)
    assert told.choices[0].message.content == f"You asked: {QUESTION} Frames seen: 8."
    assert service.sessions.options == [
        SessionOptions(
            instruction="Watch closely.", memory="full", durable=False, asked=False, frames=8
        )
    ]
    wanted = piece_frames(clip, MODEL.side, MODEL.fps, ApiSettings())
    found = service.sessions.frames
    assert [frame.time_s for frame in found] == [time_s for time_s, _ in wanted]
    for frame, (_, pixels) in zip(found, wanted, strict=True):
        assert np.array_equal(frame.pixels, pixels)
    assert told.usage is not None
    assert told.usage.prompt_tokens == 80 + 5 + 2
    assert told.usage.model_dump()["prompt_tokens_details"]["vision_tokens"] == 80
    assert told.usage.completion_tokens == len(f"You asked: {QUESTION} Frames seen: 8.".split())
    # Before the answer is sent: a client that got it leaves nothing behind.
    assert len(service.sessions.closed) == 1


@pytest.mark.slow
def test_a_streamed_answer_comes_in_pieces(services: Services, clip: bytes) -> None:
    """Guards the answer against narrations that are made on the way."""
    service = services()
    white = encoded(np.full((8, 8, 3), 255, np.uint8))
    chunks = list(
        service.ask(
            image(white), video(clip), text("Why?"),
            stream=True, stream_options={"include_usage": True},
        )
    )  # fmt: skip
    *body, last = chunks
    deltas = [c.choices[0].delta.content for c in body if c.choices[0].delta.content]
    assert "".join(deltas) == "You asked: Why? Frames seen: 9."
    assert len(deltas) == 6
    assert body[0].choices[0].delta.role == "assistant"
    assert body[-1].choices[0].finish_reason == "stop"
    assert last.choices == []
    assert last.usage.prompt_tokens == 91
    assert len({c.id for c in chunks}) == 1
    service.wait_closed()


@pytest.mark.slow
def test_an_answer_is_cut_at_its_bound(services: Services, clip: bytes) -> None:
    told = services().ask(video(clip), text("Why?"), max_completion_tokens=3)
    assert told.choices[0].message.content == "You asked: Why?"
    assert told.choices[0].finish_reason == "length"
    assert told.usage.completion_tokens == 3


@pytest.mark.slow
def test_pictures_and_videos_are_seen_in_order(services: Services, tmp_path: Path) -> None:
    """Guards against one clip's frames standing among another's, or being dropped as too late."""
    one = write_video(tmp_path / "a.mp4", n_frames=30, options=x264()).path.read_bytes()
    two = write_recording(tmp_path / "b.webm", n_frames=60).path.read_bytes()
    service = services()
    pictures = [encoded(draw(n)) for n in (2001, 2002, 2003)]
    service.ask(
        image(pictures[0]), video(one), text("And?"), image(pictures[1]), video(two),
        image(pictures[2]),
    )  # fmt: skip
    frames = service.sessions.frames
    assert [read_number(f.pixels) for f in frames] == [
        2001, 0, 12, 25, 2002, 0, 12, 25, 37, 50, 2003,
    ]  # fmt: skip
    assert [f.time_s for f in frames] == [n / 2 for n in range(11)]
    assert service.sessions.questions == ["And?"]
    assert len(service.sessions.options) == 1


@pytest.mark.slow
def test_a_long_video_goes_in_small_pieces_and_loses_nothing(
    services: Services, tmp_path: Path
) -> None:
    """Guards against a call of thousands of frames, and against frames dropped for lag."""
    ticks = range(0, 150_000, 500)
    data = write_video(tmp_path / "long.mp4", pts_ms=ticks, options=x264()).path.read_bytes()
    for most_waiting in (50, 10_000):
        sessions = Recorded(side=MODEL.side, most_waiting=most_waiting, step_s=0.0005)
        told = services(sessions).ask(video(data), text("Why?"))
        assert told.choices[0].message.content == "You asked: Why? Frames seen: 300."
        assert [read_number(f.pixels) for f in sessions.frames] == list(range(300))
        assert max(len(call) for call in sessions.calls) == 64


def test_a_chat_is_in_use_while_its_video_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards a chat against leaving its replica as an idle one, where a piece of its video takes
    long: all of it would have to be seen again."""
    monkeypatch.setattr(watching, "_IN_USE_S", 0.005)

    async def slow(*_: Any) -> AsyncIterator[Any]:
        for number in range(2):
            before = len(heard)
            async with asyncio.timeout(5):
                while len(heard) < before + 2:
                    await asyncio.sleep(0.005)
            yield not number, [(number, draw(number))]

    monkeypatch.setattr(watching, "_pieces", slow)
    heard: list[int] = []

    @dataclass
    class Heard(Recorded):
        async def events(
            self, session: str, after: int = 0, wait_s: float = 10.0
        ) -> list[SessionEvent]:
            heard.append(after)
            return await super().events(session, after, wait_s)

    async def work() -> None:
        sessions = Heard()
        context = Context(sessions, WordAnswers(), MODEL, "", ApiSettings())
        shown = watching.Shown([], "Why?")
        said = [each async for each in watching.converse([shown], "", 9, context)]
        assert [given.time_s for given in sessions.frames] == [0.0, 0.5]
        assert isinstance(said[-1], watching.Finished)
        assert said[-1].text == "You asked: Why? Frames seen: 2."

    asyncio.run(work())


@pytest.mark.slow
def test_uploaded_files(services: Services, clip: bytes) -> None:
    service = services()
    uploaded = service.client.files.create(file=("clip.mp4", clip), purpose="vision")
    here = {"file_data": _url(clip, "video/mp4"), "filename": "clip.mp4"}
    for part in (
        video(uploaded.id),
        {"type": "file", "file": {"file_id": uploaded.id}},
        {"type": "file", "file": here},
    ):
        told = service.ask(part, text("Why?"))
        assert told.choices[0].message.content == "You asked: Why? Frames seen: 8."
    with pytest.raises(openai.NotFoundError) as missing:
        service.ask(video("file-" + "0" * 32), text("Why?"))
    assert missing.value.code == "file_not_found"


@pytest.mark.slow
def test_a_summary_by_rule(services: Services) -> None:
    """Guards the bundled model, which has not learned to summarize, against answering noise."""
    service = services(model={"digest": True})
    white = encoded(np.full((8, 8, 3), 255, np.uint8))
    black = encoded(np.zeros((8, 8, 3), np.uint8))
    wanted = by_rule([f"A bright scene at {time_s:.2f} s." for time_s in (0.0, 1.0)])
    shown = [image(white), image(black), image(white), image(black)]
    for asking in ([], [text("")], [text("SUMMARIZE the video, so far")]):
        told = service.ask(*shown, *asking)
        assert told.choices[0].message.content == f"|{wanted}"
        assert told.usage.prompt_tokens == 40
        chunks = list(service.ask(*shown, *asking, stream=True))
        assert "".join(c.choices[0].delta.content or "" for c in chunks) == f"|{wanted}"
    assert service.sessions.questions == []
    told = service.ask(*shown, text(QUESTION))
    assert told.choices[0].message.content == f"You asked: {QUESTION} Frames seen: 4."
    assert len(service.sessions.closed) == len(service.sessions.options) == 7


def test_a_learned_model_is_asked_for_its_summary(services: Services, clip: bytes) -> None:
    service = services()
    service.ask(video(clip))
    assert service.sessions.questions == [MODEL.summary_request]


def test_requests_for_a_summary() -> None:
    request = "Summarize the video so far."
    assert asks_for_summary("  ", request)
    assert asks_for_summary("summarize, the VIDEO so far!", request)
    assert not asks_for_summary("Describe the video.", request)


def test_earlier_turns_are_asked_again(services: Services, clip: bytes) -> None:
    """Guards follow-up questions: the session must stand where the dialogue does."""
    service = services()
    messages: Any = [
        {"role": "user", "content": [video(clip), text("Who?")]},
        {"role": "assistant", "content": "Somebody."},
        {"role": "user", "content": [image(encoded(draw(9))), text("And")]},
        {"role": "user", "content": "now?"},
    ]
    told = service.client.chat.completions.create(model=MODEL.name, messages=messages)
    assert told.choices[0].message.content == "You asked: And now? Frames seen: 9."
    assert service.sessions.questions == ["Who?", "And\nnow?"]
    messages[0]["content"].pop()
    service.client.chat.completions.create(model=MODEL.name, messages=messages, max_tokens=2)
    asked = [(question.text, question.max_tokens) for question in service.sessions.asked[-2:]]
    assert asked == [(MODEL.summary_request, 256), ("And\nnow?", 2)]


@pytest.mark.parametrize("blank", ["", "  ", []])
def test_a_last_turn_without_words_asks_for_a_summary(
    services: Services, clip: bytes, blank: Any
) -> None:
    """Guards against an answer that never ends."""
    service = services()
    messages: Any = [
        {"role": "user", "content": [video(clip), text("Who?")]},
        {"role": "assistant", "content": "Somebody."},
        {"role": "user", "content": blank},
    ]
    client = service.client.with_options(timeout=60.0, max_retries=0)
    client.chat.completions.create(model=MODEL.name, messages=messages)
    assert service.sessions.questions == ["Who?", MODEL.summary_request]


@pytest.mark.slow
def test_wrong_requests_are_refused_in_openais_shape(
    services: Services, clip: bytes, tmp_path: Path
) -> None:
    """Guards clients that act on ``code``, and users who must find the part that is wrong."""
    service = services(max_video_s=10.0, max_pixels=100 * 100)
    large = encoded(draw(1, 200, 200))
    long = write_video(tmp_path / "l.mp4", pts_ms=(0, 9000, 12_000), options=x264())
    cut = clip[: len(clip) // 2]
    cases: list[tuple[Any, type[openai.APIStatusError], str, str]] = [
        (video(cut), openai.BadRequestError, "media_error", "messages.0.content.1: .*moov"),
        (video(b"hello"), openai.APIStatusError, "unsupported_media_type", "this is no video"),
        (video(large), openai.APIStatusError, "unsupported_media_type", "this is no video"),
        (image(clip), openai.APIStatusError, "unsupported_media_type", "this is no picture"),
        (image(large), openai.APIStatusError, "media_too_large", "200 x 200 pixels"),
        (video(long.path.read_bytes()), openai.APIStatusError, "media_too_large", "long"),
        (video("http://127.0.0.1/x"), openai.BadRequestError, "url_not_allowed", "127.0.0.1"),
        (video("/etc/passwd"), openai.BadRequestError, "url_not_allowed", "no data:"),
        (video("s3://other/x"), openai.BadRequestError, "url_not_allowed", "no bucket"),
    ]
    for stream in (False, True):
        for part, kind, code, message in cases:
            with pytest.raises(kind, match=message) as caught:
                service.ask(text("Why?"), part, stream=stream)
            assert caught.value.code == code
            assert caught.value.type == "invalid_request_error"
    with pytest.raises(openai.APIStatusError, match="more than 20 frames") as caught:
        service.ask(video(clip), video(clip), video(clip), text("Why?"))
    assert caught.value.status_code == 413
    with pytest.raises(openai.NotFoundError) as missing:
        service.client.chat.completions.create(
            model="other", messages=[{"role": "user", "content": "x"}]
        )
    assert missing.value.code == "model_not_found"
    for options in (
        {"n": 2}, {"stop": ["x"]}, {"logprobs": True}, {"response_format": {"type": "json_object"}},
        {"tools": [{"type": "function", "function": {"name": "f"}}]}, {"max_tokens": 0},
    ):  # fmt: skip
        with pytest.raises(openai.UnprocessableEntityError) as refused:
            service.ask(text("Why?"), **options)
        assert refused.value.code == "invalid_value"
        assert str(refused.value.param).startswith(next(iter(options)))
    with pytest.raises(openai.UnprocessableEntityError, match="file_id or file_data is missing"):
        service.ask({"type": "file", "file": {}})
    messages: Any = [{"role": "system", "content": [image(large)]}]
    with pytest.raises(openai.UnprocessableEntityError, match="'system' holds text alone"):
        service.client.chat.completions.create(model=MODEL.name, messages=messages)
    assert service.sessions.closed == [] == service.sessions.frames


def test_a_service_without_room_says_so(services: Services, clip: bytes) -> None:
    sessions = Recorded(side=MODEL.side, most_sessions=0)
    with pytest.raises(openai.RateLimitError) as caught:
        services(sessions).ask(video(clip), text("Why?"))
    assert caught.value.code == "overloaded"
    assert "retry-after" in caught.value.response.headers


@dataclass
class Breaking(Recorded):
    """Sessions whose replica is lost when a question comes."""

    async def give(
        self, session: str, inputs: Sequence[Input], seq: int | None = None
    ) -> list[Receipt]:
        if isinstance(inputs[0], Question):
            raise SessionError("unavailable", "the replica was lost")
        return await super().give(session, inputs, seq)


def test_a_failure_on_the_way_is_told(services: Services, clip: bytes) -> None:
    """Guards against an answer that stops in the middle as if it were whole."""
    service = services(Breaking(side=MODEL.side))
    with pytest.raises(openai.InternalServerError) as caught:
        service.ask(video(clip), text("Why?"))
    assert caught.value.code == "unavailable"
    with pytest.raises(openai.APIError, match="the replica was lost"):
        list(service.ask(video(clip), text("Why?"), stream=True))
    assert len(service.sessions.closed) == 2


@dataclass
class Forgetful(Recorded):
    """Sessions whose model has no room for the third frame."""

    async def events(
        self, session: str, after: int = 0, wait_s: float = 10.0
    ) -> list[SessionEvent]:
        failed = {"code": "model_error", "message": "no room for it", "frame": 2}
        return [
            replace(event, type="error", data=failed) if event.data.get("frame") == 2 else event
            for event in await super().events(session, after, wait_s)
        ]


@pytest.mark.slow
def test_an_answer_about_a_part_is_none(services: Services, clip: bytes) -> None:
    """Guards against an answer that passes for one about a video of which frames were lost."""
    for digest in (False, True):
        service = services(Forgetful(side=MODEL.side), model={"digest": digest})
        with pytest.raises(openai.InternalServerError, match="no room for it") as caught:
            service.ask(video(clip), text("" if digest else "Why?"))
        assert caught.value.code == "model_error"
        assert len(service.sessions.closed) == 1


@pytest.mark.slow
def test_a_client_that_goes_leaves_no_session(services: Services, clip: bytes) -> None:
    """Guards the model against work for nobody, streamed or not, in every stage."""
    service = services(Recorded(side=MODEL.side, step_s=0.2))
    body = {
        "model": MODEL.name,
        "messages": [{"role": "user", "content": [video(clip), text("Why?")]}],
    }
    for stream in (False, True):
        with pytest.raises(httpx.ReadTimeout), httpx.Client(timeout=0.5) as client:
            client.post(f"{service.address}/v1/chat/completions", json={**body, "stream": stream})
    service.wait_closed()
    assert len(service.sessions.closed) == 2
    assert all(service.sessions.unseen), "they were seen to the end"
    answer = service.ask(image(encoded(draw(1))), text("a b c d e f g h"), stream=True)
    for chunk in answer:
        if chunk.choices[0].delta.content:
            break
    answer.close()
    service.wait_closed()


@pytest.mark.slow
def test_silence_is_filled(
    services: Services, clip: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards long videos against proxies that cut a silent connection."""
    monkeypatch.setattr(chat, "KEEP_ALIVE_S", 0.05)
    service = services(Recorded(side=MODEL.side, step_s=0.05))
    body = {
        "model": MODEL.name,
        "stream": True,
        "messages": [{"role": "user", "content": [video(clip), text("Why?")]}],
    }
    answer = httpx.post(f"{service.address}/v1/chat/completions", json=body).text
    assert ": keep-alive\n\n" in answer
    assert answer.endswith("data: [DONE]\n\n")
    told = service.ask(video(clip), text("Why?"), stream=True)
    said = "".join(c.choices[0].delta.content or "" for c in told)
    assert said == "You asked: Why? Frames seen: 8."


@pytest.mark.slow
def test_nothing_is_left_on_the_disk(
    services: Services, clip: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    service = services()
    service.ask(video(clip), video(clip), text("Why?"))
    with pytest.raises(openai.BadRequestError):
        service.ask(video(clip), video(clip[:3000]), text("Why?"))
    assert not list((tmp_path / "temporary").iterdir())


@pytest.mark.slow
def test_what_a_chat_names_is_bounded_in_all(
    services: Services, clip: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards the disk, which a thousand pictures and videos within their own bounds fill."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    most, lying = int(2.5 * len(clip)), []

    @asynccontextmanager
    async def from_elsewhere(url: str, _: Context) -> AsyncIterator[str]:
        data = clip if "video" in url else encoded(draw(1)) + bytes(len(clip))
        with tempfile.NamedTemporaryFile(prefix=fetching._PREFIX) as file:
            file.write(data)
            file.flush()
            lying.append(len(list((tmp_path / "temporary").iterdir())))
            yield file.name

    monkeypatch.setattr(watching, "fetched", from_elsewhere)
    service = services(max_upload_bytes=most)
    images = [image("https://a.example/image")] * 3
    told = service.ask(video("https://a.example/video"), *images, text("Why?"))
    assert told.choices[0].message.content == "You asked: Why? Frames seen: 11."
    assert lying == [1, 2, 2, 2]
    with pytest.raises(openai.APIStatusError, match=f"more than {most} bytes of videos") as refused:
        service.ask(*[video("https://a.example/video")] * 3, text("Why?"))
    assert refused.value.code == "media_too_large"
    assert not list((tmp_path / "temporary").iterdir())


@pytest.mark.slow
def test_models(services: Services) -> None:
    service = services()
    (model,) = service.client.models.list().data
    assert model.id == MODEL.name
    assert service.client.models.retrieve(MODEL.name) == model
    with pytest.raises(openai.NotFoundError):
        service.client.models.retrieve("other/model")
