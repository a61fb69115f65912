"""A Ray cluster with a Jobs API, as ``ray start`` gives one, for the length of a test module."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
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

from tests.pipelines.job_runs import MARK, gone, marked
from tests.ports import free_ports

UP_WITHIN_S = 120.0
#: Ray's node gives up when its agent needs more than some 15 s, as it may on a busy machine.
ATTEMPTS = 4
#: Logical CPUs: a replica, two decoding actors, two reducers and what Ray Data wants beside them.
CPUS = 10


@dataclass(frozen=True)
class Cluster:
    """A running cluster.

    Attributes:
        address: of its Jobs API.
        gcs: what ``ray.init`` takes.
        token: what it asks for.
    """

    address: str
    gcs: str
    token: str

    @property
    def environment(self) -> dict[str, str]:
        """Variables that let a command use the cluster."""
        return {"RAY_API_SERVER_ADDRESS": self.address, "RAY_AUTH_TOKEN": self.token}


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A cluster of its own, guarded by a token; nothing of it is left afterwards."""
    mark = uuid.uuid4().hex
    # A short name: Ray makes Unix sockets below it, whose paths may have 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="lr", dir="/tmp"))
    try:
        for attempt in range(ATTEMPTS):
            found = _start(folder, mark)
            if found is not None:
                break
            assert attempt < ATTEMPTS - 1, (folder / "start.log").read_text()
            gone(mark, within_s=0)
        assert found is not None
        yield found
    finally:
        for pid, words in marked(mark).items():
            if "--block" in words:  # ends what it started as well
                os.kill(pid, signal.SIGTERM)
        gone(mark, within_s=5)
        shutil.rmtree(folder, ignore_errors=True)


def _start(folder: Path, mark: str) -> Cluster | None:
    """Starts a cluster; None when it did not come up."""
    ports = free_ports(4)
    found = Cluster(f"http://127.0.0.1:{ports[1]}", f"127.0.0.1:{ports[0]}", secrets.token_hex(32))
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "AWS_"))}
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
    with open(folder / "start.log", "w") as said:
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
    deadline = time.monotonic() + UP_WITHIN_S
    headers = {"Authorization": f"Bearer {found.token}"}
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
        # The dashboard answers before it is sure that there will be a node.
        if "Ray runtime started" not in (folder / "start.log").read_text():
            continue
        try:
            jobs = httpx.get(f"{found.address}/api/jobs/", headers=headers, timeout=5)
            if jobs.status_code == 200:
                return found
        except httpx.HTTPError:
            continue
    return None
