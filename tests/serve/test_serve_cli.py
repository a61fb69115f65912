"""``longreel serve`` as an operator runs it: what it says, that it answers, and that it ends."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from actors.claim import LOOK_S, StoreClaim
from tests.ports import free_ports

GUIDE = (Path(__file__).parents[2] / "docs" / "guide.md").read_text()

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_it_says_what_it_loads_and_where_it_answers(tmp_path: Path) -> None:
    """Guards against an operator who waits without a word, or finds no address."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "longreel.cli", "serve", "--port", str(port)]
    command += ["--state", str(tmp_path), "--quantize", "int8", "--keys", "required"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        try:
            loading = process.stdout.readline()
            assert loading.startswith("loading longreel-tiny: ")
            assert loading.endswith(" MiB of weights in each replica\n")
            base = f"http://127.0.0.1:{port}"
            said = [process.stdout.readline() for _ in range(6)]
            assert said[0] == f"serving longreel-tiny on {base}; Ctrl-C stops it\n"
            assert [line.split()[-1] for line in said[1:]] == [
                f"{base}/",
                f"{base}/docs",
                f"{base}/metrics",
                str(tmp_path),
                str(tmp_path),
            ]
            shown = "".join(said[:5]).replace(base, "http://127.0.0.1:8000")
            assert shown.replace(str(tmp_path), "/home/you/.local/state/longreel") in GUIDE
            make = said[-1].split()[1:]
            assert make[:4] == ["longreel", "keys", "create", "NAME"]
            made = [sys.executable, "-m", "longreel.cli", *make[1:]]
            key = subprocess.run(made, capture_output=True, text=True, check=True).stdout.strip()
            there = f"{base}/v1/models"
            assert httpx.get(there, timeout=60).status_code == 401
            models = httpx.get(there, headers={"Authorization": f"Bearer {key}"}, timeout=60).json()
            (model,) = models["data"]
            assert (model["id"], model["quantize"]) == ("longreel-tiny", "int8")
        finally:
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=120)
    assert (process.returncode, out, err) == (0, "", "")
    (claim,) = (tmp_path / "claims").iterdir()
    assert json.loads(claim.read_text())["released"], "the next start would wait"


@pytest.mark.long
def test_a_second_cluster_on_a_store_is_refused(tmp_path: Path) -> None:
    """Guards sessions against two clusters on their store, and operators against riddles."""
    claim = StoreClaim(str(tmp_path), "another")
    claim.take()
    ended = threading.Event()

    def hold() -> None:
        while not ended.wait(LOOK_S):
            claim.renew()

    holding = threading.Thread(target=hold)
    holding.start()
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "longreel.cli", "serve", "--port", str(port)]
    started = time.monotonic()
    try:
        refused = subprocess.run(
            [*command, "--state", str(tmp_path)], capture_output=True, text=True, timeout=120
        )
    finally:
        ended.set()
        holding.join()
    assert time.monotonic() - started < 60
    assert refused.returncode == 1
    (line,) = refused.stderr.splitlines()
    there = f"{tmp_path} is in use: another cluster serves from it, on {socket.gethostname()}"
    assert there in line
    assert line.endswith("End that first, or serve from another state store")
