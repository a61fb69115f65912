"""``longreel chat`` as a process, against the HTTP API on loopback.

Guards against a command that leaves files or sessions at the service, or tells a user's mistake in
a traceback.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from longreel import Client
from tests.longreel.commands import run, terminal
from tests.longreel.service import Fault, Service
from tests.videos import write_video


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with Service(tmp_path / "store") as running:
        yield running


@pytest.fixture
def clip(tmp_path: Path) -> str:
    return str(write_video(tmp_path / "clip.mp4", n_frames=50).path)


@pytest.mark.slow
def test_a_question_about_a_file_is_answered(service: Service, clip: str) -> None:
    """Guards the plain use, and against uploads that stay behind."""
    done = run("chat", clip, "What is there?", "--server", service.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "You asked: What is there? Frames seen: 4.\n"
    with Client(service.url) as client:
        assert client.files.list() == []


@pytest.mark.slow
def test_the_environment_says_where_and_who(service: Service, clip: str) -> None:
    done = run("chat", clip, "Who?", LONGREEL_SERVER=service.url, LONGREEL_API_KEY="secret-of-mine")
    assert done.returncode == 0, done
    sent = {headers.get("authorization") for _, _, headers in service.seen}
    assert sent == {"Bearer secret-of-mine"}


@pytest.mark.slow
def test_an_uploaded_file_is_asked_about_and_stays(service: Service, clip: str) -> None:
    with Client(service.url) as client:
        name = client.files.upload(clip).id
        done = run("chat", name, "--server", service.url, stdin=b"From a pipe?\n")
        assert done.stdout == "You asked: From a pipe? Frames seen: 4.\n", done
        assert [f.id for f in client.files.list()] == [name]


@pytest.mark.slow
def test_an_answer_that_broke_off_is_said_once(service: Service, clip: str) -> None:
    """Guards against words printed twice when the connection breaks amid an answer."""
    service.faults += [
        Fault("/chat/completions", after_chunks=4),
        Fault("/chat/completions", status=503),
        Fault("/chat/completions", after_chunks=7),
    ]
    done = run("chat", clip, "Still there?", "--server", service.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "You asked: Still there? Frames seen: 4.\n"
    assert sum(f.times for f in service.faults) == 0


@pytest.mark.slow
def test_questions_are_typed_one_by_one(service: Service, clip: str) -> None:
    """Guards the prompt: questions in turn on one upload, and an end by an empty line."""
    with terminal("chat", clip, "--server", service.url) as shown:
        shown.wait_for("? ")
        shown.type("First?\n")
        shown.wait_for("You asked: First? Frames seen: 4.")
        shown.type("Second?\n")
        shown.wait_for("You asked: Second? Frames seen: 4.")
        shown.type("\n")
        assert shown.wait() == 0, shown.shown
    assert len(service.requests("/v1/files", "POST")) == 1
    with Client(service.url) as client:
        assert client.files.list() == []


@pytest.mark.slow
def test_ctrl_c_leaves_nothing(service: Service, clip: str) -> None:
    with terminal("chat", clip, "--server", service.url) as shown:
        shown.wait_for("? ")
        shown.type("\x03")
        assert shown.wait() == 130, shown.shown
        assert "Traceback" not in shown.shown
    with Client(service.url) as client:
        assert client.files.list() == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_nothing(service: Service, clip: str, number: int) -> None:
    """Guards against a supervisor, or a closed terminal, that has uploads stay behind."""
    with terminal("chat", clip, "--server", service.url) as shown:
        shown.wait_for("? ")
        shown.process.send_signal(number)
        assert shown.wait() == 130, shown.shown
        assert "Traceback" not in shown.shown
    with Client(service.url) as client:
        assert client.files.list() == []


@pytest.mark.slow
def test_a_service_that_is_gone_holds_up_no_end(service: Service, clip: str) -> None:
    """Guards against a command that only SIGKILL ends, or that fails for what it had to tidy up."""
    with terminal("chat", clip, "--server", service.url) as shown:
        shown.wait_for("? ")
        service.stop()
        began = time.monotonic()
        shown.process.send_signal(signal.SIGTERM)
        assert shown.wait() == 130, shown.shown
        assert time.monotonic() - began < 15


@pytest.mark.slow
@pytest.mark.parametrize("what", ["no file", "no video", "no question", "no url", "no text"])
def test_what_cannot_work_is_one_line(
    service: Service, clip: str, tmp_path: Path, what: str
) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    server = ["--server", service.url]
    arguments, status, said = {
        "no file": (["nowhere.mp4", "What?", *server], 2, "nowhere.mp4"),
        "no video": ([str(text), "What?", *server], 1, f"longreel: {text}: "),
        "no question": ([clip, *server], 2, "question"),
        "no text": ([clip, "caf\udce9", *server], 2, "UTF-8"),
        "no url": ([clip, "What?", "--server", "here"], 2, "'here'"),
    }[what]
    done = run("chat", *arguments)
    assert done.returncode == status, done
    assert len(done.stderr.strip().splitlines()) == 1, done
    assert said in done.stderr
    assert not done.stdout.strip()
