"""The examples of docs/api.md, run as they stand against the HTTP API on loopback."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.longreel.commands import TIMEOUT_S, environment
from tests.longreel.footage import lights
from tests.longreel.service import Service
from tests.serve.following_streams import FollowingStreams
from tests.serve.live_sources import HttpSource
from tests.serve.memory_sessions import MemorySessions

_ROOT = Path(__file__).parent.parent.parent
_PAGE = (_ROOT / "docs" / "api.md").read_text()


def examples(language: str) -> list[str]:
    """The page's blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", _PAGE, re.MULTILINE | re.DOTALL)


PYTHON, SHELL = examples("python"), examples("sh")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    sessions = MemorySessions()
    store = tmp_path_factory.mktemp("store")
    with Service(store, sessions, FollowingStreams(sessions)) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the examples find their files."""
    lights(tmp_path / "clip.mp4", [255, 0, 0, 255])
    for number in range(2):
        bright = np.full((48, 64, 3), 200 * number, np.uint8)
        Image.fromarray(bright).save(tmp_path / f"frame-{number}.jpg")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(PYTHON)))
def test_the_python_examples_run(number: int, service: Service, folder: Path) -> None:
    """Guards against a page that shows what no longer works."""
    if "openai" in PYTHON[number]:
        pytest.importorskip("openai")
    with HttpSource(folder) as source:
        program = _at(service, PYTHON[number]).replace("http://127.0.0.1:8001", source.url)
        done = _run([sys.executable, "-c", program], folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(SHELL)))
def test_the_shell_examples_run(number: int, service: Service, folder: Path) -> None:
    """The same for curl and the command line; what needs a person or FFmpeg is left out."""
    lines = [
        line
        for line in _at(service, SHELL[number]).splitlines()
        if "typed" not in line and not line.startswith("ffmpeg")
    ]
    if "curl" in SHELL[number] and not (shutil.which("curl") and shutil.which("jq")):
        pytest.skip("needs curl and jq")
    done = _run(["bash", "-c", "\n".join(["set -euo pipefail", *lines])], folder, service.url)
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert done.stdout.strip()


def test_the_browser_example_is_a_program(tmp_path: Path) -> None:
    """Guards against a page that a browser does not even read."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node")
    (page,) = examples("html")
    script = re.search(r"<script type=\"module\">\n(.*)</script>", page, re.DOTALL)
    assert script is not None
    program = tmp_path / "page.mjs"
    program.write_text(script[1])
    subprocess.run([node, "--check", program], check=True, timeout=TIMEOUT_S)


def _at(service: Service, text: str) -> str:
    return text.replace("http://127.0.0.1:8000", service.url)


def _run(arguments: list[str], folder: Path, server: str = "") -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    return subprocess.run(
        arguments,
        cwd=folder,
        env=environment(PYTHONPATH=str(_ROOT), PATH=path, LONGREEL_SERVER=server),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
