"""``longreel watch`` as a process, against the HTTP API on loopback.

Guards against input that is dropped in silence, and mistakes that are told in a traceback.
"""

from __future__ import annotations

import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from longreel import Client
from tests.longreel.commands import TIMEOUT_S, command, environment, run, terminal
from tests.longreel.footage import lights
from tests.longreel.service import Fault, Service
from tests.serve.memory_sessions import MemorySessions
from tests.videos import truncate, write_video

pytestmark = pytest.mark.waits


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with Service(tmp_path / "store") as running:
        yield running


FLASHES = [255, 0, 0, 255, 0]
SAID = ["00:00.0  A bright scene at 0.00 s.", "00:01.5  A bright scene at 1.50 s."]


@pytest.mark.slow
def test_a_file_is_narrated_line_by_line(service: Service, tmp_path: Path) -> None:
    """Guards the plain use: each narration once, with its time; the session is closed."""
    video = lights(tmp_path / "v.mp4", FLASHES)
    done = run("watch", video, "--speed", "0", "--ask", "How many?", "--server", service.url)
    assert done.returncode == 0, done
    assert done.stdout.splitlines() == [
        *SAID, "? How many?", "> You asked: How many? Frames seen: 5.",
    ]  # fmt: skip
    assert re.fullmatch(r"5 frames, 2 narrations, 1 answer in \d+\.\d s\n", done.stderr), done
    with Client(service.url) as client:
        assert client.sessions() == []


@pytest.mark.slow
def test_a_file_is_shown_at_its_own_pace(service: Service, tmp_path: Path) -> None:
    """Guards against a camera's hour pushed in a second, and against one that drags behind."""
    video = lights(tmp_path / "v.mp4", [255, 0] * 3)
    arguments = command("watch", video, "--speed", "2", "--server", service.url)
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, env=environment(), cwd=Path(__file__).parents[2]
    ) as process:
        assert process.stdout is not None
        came = [(time.monotonic(), line.decode()) for line in process.stdout]
    assert [line[:7] for _, line in came] == ["00:00.0", "00:01.0", "00:02.0"]
    # Two seconds of video, at twice its pace.
    assert 0.8 <= came[-1][0] - came[0][0] < 2.0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "glob", "stdin"])
def test_pictures_and_pipes_are_watched_too(service: Service, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, brightness in enumerate(FLASHES):
        Image.fromarray(np.full((96, 96, 3), brightness, np.uint8)).save(folder / f"{number}.png")
    stdin = b""
    if kind == "stdin":
        stdin = Path(lights(tmp_path / "v.ts", FLASHES, "mpegts")).read_bytes()
    source = {"folder": str(folder), "glob": f"{folder}/*.png", "stdin": "-"}[kind]
    done = run("watch", source, "--speed", "0", "--server", service.url, stdin=stdin)
    assert done.returncode == 0, done
    assert done.stdout.splitlines() == SAID


@pytest.mark.slow
def test_damage_is_said_and_the_rest_is_watched(service: Service, tmp_path: Path) -> None:
    clip = write_video(tmp_path / "whole.mkv", n_frames=100)
    cut = truncate(clip, tmp_path / "cut.mkv", 0.6)
    done = run("watch", cut.uri, "--speed", "0", "--server", service.url)
    assert done.returncode == 0, done
    assert re.search(r"^! Truncated: ", done.stderr, re.MULTILINE), done
    assert re.search(r"^[1-7] frames, ", done.stderr, re.MULTILINE), done


@pytest.mark.slow
def test_lost_replies_change_nothing(service: Service, tmp_path: Path) -> None:
    """Guards against a narration that is printed twice or not at all when connections break."""
    video = lights(tmp_path / "v.mp4", FLASHES * 3)
    calm = run("watch", video, "--speed", "0", "--ask", "Well?", "--server", service.url)
    service.faults += [
        Fault("/v1/sessions", "POST"),
        Fault("/frames", times=2),
        Fault("/frames", status=429, retry_after="1"),
        Fault("/events", times=4, after_chunks=6),
        Fault("/responses", after_chunks=2),
    ]
    done = run("watch", video, "--speed", "0", "--ask", "Well?", "--server", service.url)
    assert done.returncode == 0, done
    assert done.stdout == calm.stdout
    assert done.stdout.count("bright") == 6
    assert done.stderr.startswith("15 frames, 6 narrations, 1 answer")
    assert sum(f.times for f in service.faults if f.path != "/events") == 0
    assert any(int(h["last-event-id"]) > 0 for h in service.requests("/events"))


@pytest.mark.slow
def test_a_restart_of_the_service_is_survived(tmp_path: Path) -> None:
    """Guards against a watch that ends, or loses or repeats lines, when the service restarts."""
    video = lights(tmp_path / "v.mp4", [255] * 12)
    with Service(tmp_path / "store", MemorySessions(step_s=0.05)) as service:
        process = subprocess.Popen(
            command("watch", video, "--speed", "2", "--ask", "All?", "--server", service.url),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
            cwd=Path(__file__).parents[2],
        )
        with process:
            assert process.stdout is not None
            assert process.stderr is not None
            lines = [process.stdout.readline().decode(), process.stdout.readline().decode()]
            service.stop()
            threading.Timer(1.5, service.start).start()
            lines += [line.decode() for line in process.stdout]
            errors = process.stderr.read().decode()
        assert process.returncode == 0, errors
    assert [line[9:].strip() for line in lines[:12]] == [
        f"A bright scene at {n / 2:.2f} s." for n in range(12)
    ]
    assert lines[12:] == ["? All?\n", "> You asked: All? Frames seen: 12.\n"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_closes_the_session(service: Service, tmp_path: Path, number: int) -> None:
    """Guards against a session that holds memory for ever after its watcher left."""
    video = lights(tmp_path / "v.mp4", [255] + [0] * 200)
    process = subprocess.Popen(
        command("watch", video, "--server", service.url),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        cwd=Path(__file__).parents[2],
    )
    with process, Client(service.url) as client:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"00:00.0")
        assert len(client.sessions()) == 1
        process.send_signal(number)
        _, errors = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 130
        assert client.sessions() == []
    assert re.fullmatch(r"\d+ frames?, 1 narration, 0 answers in \d+\.\d s\n", errors.decode())


@pytest.mark.slow
def test_typed_lines_are_questions(service: Service, tmp_path: Path) -> None:
    video = lights(tmp_path / "v.mp4", [255] + [0] * 100)
    with terminal("watch", video, "--server", service.url) as shown:
        shown.wait_for("A bright scene")
        shown.type("What was that?\n")
        shown.wait_for("You asked: What was that? Frames seen:")
        shown.type("\x03")
        assert shown.wait() == 130, shown.shown
    assert "1 answer" in shown.shown
    assert "Traceback" not in shown.shown


@pytest.mark.slow
def test_an_http_address_is_decoded_here_when_asked(service: Service, tmp_path: Path) -> None:
    """The service itself serves the file that is watched: any HTTP server would do."""
    video = lights(tmp_path / "v.ts", FLASHES, "mpegts")
    with Client(service.url) as client:
        name = client.files.upload(video).id
    address = f"{service.url}/v1/files/{name}/content"
    done = run("watch", address, "--local", "--server", service.url)
    assert done.returncode == 0, done
    assert done.stdout.splitlines() == SAID


@pytest.mark.slow
@pytest.mark.parametrize(
    "what",
    ["nothing", "text", "empty folder", "speed", "memory", "no pipe", "fps", "threshold", "words"],
)
def test_what_cannot_work_is_one_line(service: Service, tmp_path: Path, what: str) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    arguments, status = {
        "nothing": (["nowhere.mp4"], 2),
        "text": ([str(text)], 1),
        "empty folder": ([str(tmp_path / "store")], 2),
        "speed": ([str(text), "--speed", "-1"], 2),
        "memory": ([str(text), "--memory", "elephant"], 1),
        "no pipe": (["-"], 1),
        "fps": ([str(text), "--fps", "nan"], 2),
        "threshold": ([str(text), "--silence-threshold", "inf"], 2),
        "words": ([str(text), "--ask", "caf\udce9"], 2),
    }[what]
    (tmp_path / "store").mkdir(exist_ok=True)
    done = run("watch", *arguments, "--server", service.url)
    assert done.returncode == status, done
    assert not done.stdout.strip()
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("longreel: "), done
    with Client(service.url) as client:
        assert client.sessions() == []
