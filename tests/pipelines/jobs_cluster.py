"""A Ray cluster with a Jobs API, as ``ray start`` gives one, for the length of a test module."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.pipelines.job_runs import MARK, gone

UP_WITHIN_S = 120.0
#: Logical CPUs: a replica, two decoding actors, two reducers and what Ray Data wants beside them.
CPUS = 10


@dataclass(frozen=True)
class Cluster:
    """Where a cluster's Jobs API is, and the token that it asks for."""

    address: str
    token: str

    @property
    def environment(self) -> dict[str, str]:
        """Variables that let a command use the cluster."""
        return {"RAY_API_SERVER_ADDRESS": self.address, "RAY_AUTH_TOKEN": self.token}


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A cluster of its own, guarded by a token; nothing of it is left afterwards.

    Its processes know nothing of this checkout: what a job runs must be sent or installed.
    """
    mark = uuid.uuid4().hex
    # A short name: Ray makes Unix sockets below it, whose paths may have 107 bytes.
    folder = tempfile.mkdtemp(prefix="lr", dir="/tmp")
    ports = _free_ports(4)
    found = Cluster(f"http://127.0.0.1:{ports[1]}", secrets.token_hex(32))
    dull = ("RAY_", "AWS_", "LONGREEL_", "PYTHONPATH")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(dull)}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
    environment |= {MARK: mark, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": found.token}
    flags = {
        "port": ports[0],
        "dashboard-port": ports[1],
        "dashboard-agent-listen-port": ports[2],
        "ray-client-server-port": ports[3],
        "include-dashboard": "true",
        "num-cpus": CPUS,
        "object-store-memory": 200 * 2**20,
        "temp-dir": folder,
    }
    with open(Path(folder) / "start.log", "w+") as said:
        process = subprocess.Popen(
            ["ray", "start", "--head", "--block", "--disable-usage-stats"]
            + [f"--{name}={value}" for name, value in flags.items()],
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _await(found, process, Path(said.name))
            yield found
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            gone(mark, within_s=10)
            shutil.rmtree(folder, ignore_errors=True)


def _await(cluster: Cluster, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + UP_WITHIN_S
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        try:
            headers = {"Authorization": f"Bearer {cluster.token}"}
            jobs = httpx.get(f"{cluster.address}/api/jobs/", headers=headers, timeout=5)
            if jobs.status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)


def _free_ports(n: int) -> list[int]:
    """Ports that nothing listened on a moment ago, all different."""
    sockets = [socket.socket() for _ in range(n)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
