"""``longreel serve`` as an operator runs it: what it says, that it answers, and that it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.ports import free_ports

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_it_says_what_it_loads_and_where_it_answers(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "longreel.cli", "serve", "--port", str(port)]
    command += ["--state", str(tmp_path), "--quantize", "int8"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        try:
            loading = process.stdout.readline()
            assert loading.startswith("loading longreel-tiny: ")
            assert loading.endswith(" MiB of weights in each replica\n")
            serving = process.stdout.readline()
            assert serving.startswith(f"serving longreel-tiny on http://127.0.0.1:{port} ")
            models = httpx.get(f"http://127.0.0.1:{port}/v1/models", timeout=60).json()
            (model,) = models["data"]
            assert (model["id"], model["quantize"]) == ("longreel-tiny", "int8")
        finally:
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=120)
    assert (process.returncode, out, err) == (0, "", "")
