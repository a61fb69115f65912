"""``longreel watch`` of addresses that the service pulls."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from longreel import Client
from tests.longreel.commands import TIMEOUT_S, command, environment, run
from tests.longreel.footage import lights
from tests.longreel.service import Fault, Service
from tests.serve.following_streams import FollowingStreams
from tests.serve.live_sources import HttpSource
from tests.serve.memory_sessions import MemorySessions

pytestmark = pytest.mark.waits


@pytest.fixture
def source(tmp_path: Path) -> Iterator[HttpSource]:
    """Serves files of the test's folder."""
    with HttpSource(tmp_path) as running:
        yield running


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    sessions = MemorySessions()
    with Service(tmp_path / "store", sessions, FollowingStreams(sessions)) as running:
        yield running


@pytest.mark.slow
def test_a_recording_is_pulled_to_its_end(
    service: Service, source: HttpSource, tmp_path: Path
) -> None:
    """Guards against frames seen after the source's end that nobody waits for."""
    lights(tmp_path / "v.mp4", [255, 0, 0, 255])
    service.faults += [Fault("/events", times=2, after_chunks=4), Fault("/streams/", status=503)]
    address = f"{source.url}/v.mp4"
    done = run("watch", address, "--ask", "How many?", "--server", service.url)
    assert done.returncode == 0, done
    assert done.stdout.splitlines() == [
        "00:00.0  A bright scene at 0.00 s.",
        "00:01.5  A bright scene at 1.50 s.",
        "? How many?",
        "> You asked: How many? Frames seen: 4.",
    ]
    assert re.fullmatch(r"4 frames, 2 narrations, 1 answer in \d+\.\d s\n", done.stderr), done
    with Client(service.url) as client:
        assert client.sessions() == []
        assert [s.state for s in client.streams.list()] == ["ended"]


@pytest.mark.slow
def test_a_source_that_is_not_there_is_one_line(service: Service, source: HttpSource) -> None:
    """Guards against a traceback, or an endless wait, for a mistyped address."""
    done = run("watch", f"{source.url}/nothing.mp4", "--server", service.url)
    assert done.returncode == 1, done
    assert not done.stdout.strip()
    assert done.stderr.splitlines()[-1].startswith("longreel: the source failed: ")
    with Client(service.url) as client:
        assert client.sessions() == []


@pytest.mark.slow
def test_ctrl_c_stops_the_pulling_too(service: Service) -> None:
    """Guards against a camera that is pulled for ever after its watcher left."""
    with HttpSource() as camera, Client(service.url) as client:
        process = subprocess.Popen(
            command(
                "watch", f"{camera.url}/live.ts", "--silence-threshold", "1", "--reconnect",
                "--server", service.url,
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
            cwd=Path(__file__).parents[2],
        )  # fmt: skip
        with process:
            assert process.stdout is not None
            assert b"A bright scene" in process.stdout.readline()
            assert [s.state for s in client.streams.list()] == ["running"]
            camera.drop()
            assert b"A bright scene" in process.stdout.readline()
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 130
        assert [s.state for s in client.streams.list()] == ["ended"]
        assert client.sessions() == []


@pytest.mark.slow
def test_ctrl_c_before_the_session_is_there_stops_the_pulling(service: Service) -> None:
    """Guards against a camera that is pulled for ever, as its watcher left too early."""
    service.faults.append(Fault("/v1/sessions/", "GET", times=10_000, status=503))
    with HttpSource() as camera, Client(service.url) as client:
        process = subprocess.Popen(
            command("watch", f"{camera.url}/live.ts", "--server", service.url),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
            cwd=Path(__file__).parents[2],
        )
        with process:
            deadline = time.monotonic() + TIMEOUT_S
            while service.faults[0].times == 10_000 and time.monotonic() < deadline:
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=TIMEOUT_S)
        assert service.faults[0].times < 10_000, "the session was never asked for"
        assert process.returncode == 130
        assert [s.state for s in client.streams.list()] == ["ended"]
