"""The service behind HAProxy, in a cluster of its own, for as long as somebody measures it.

``python -m bench.serve_haproxy FOLDER [noop]`` prints its URL once it answers, and ends with its
input.
Ray Serve reads which proxy it shall use while it is imported, so that one process has either.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench import serve_rivals
from mod.checkpoint import TINY
from pipelines.cluster import connected
from serve.app import ReplicaPlan, deploy


@contextmanager
def behind_haproxy(folder: Path, *, noop: bool = False) -> Iterator[str]:
    """Start it as a process of its own; gives its URL.

    Args:
        folder: for its state.
        noop: whether it also answers an empty POST, under ``/noop``.

    Raises:
        RuntimeError: it does not start.
    """
    command = [sys.executable, "-m", "bench.serve_haproxy", str(folder)]
    command += ["noop"] if noop else []
    environment = {**os.environ, **_environment()}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            if not url:
                raise RuntimeError(f"the service behind HAProxy ended with {process.wait()}")
            yield url
        finally:
            process.stdin.close()


def _environment() -> dict[str, str]:
    stats, metrics = _free_ports(2)
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        # Of all that HAProxy takes, these alone are the same for every service of a machine.
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        # Nobody is there any more when this ends.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",
    }


def _free_ports(n: int) -> list[int]:
    with ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket()) for _ in range(n)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def main(folder: Path, noop: bool) -> None:
    """Serve until standard input ends."""
    (port,) = _free_ports(1)
    with connected("local"):
        deploy(ReplicaPlan(TINY, state=str(folder)), http=("127.0.0.1", port))
        if noop:
            serve_rivals.run_noop()
        print(f"http://127.0.0.1:{port}", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] == ["noop"])
