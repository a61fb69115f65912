"""Ending parts of a running service: replicas as a power cut does, the directory as Ray does."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import ray

from serve.directory import directory_handle, directory_name

_PREFIX = "SERVE_REPLICA::longreel#{}#"


def replicas(within_s: float = 120.0, deployment: str = "replica") -> dict[str, int]:
    """Process ids of the replicas of a deployment that are up, by the replica's own id."""
    found, prefix = {}, _PREFIX.format(deployment)
    for actor in ray.util.list_named_actors(all_namespaces=True):
        name = actor["name"]
        if not name.startswith(prefix):
            continue
        try:
            handle = ray.get_actor(name, namespace=actor["namespace"])
            pid = ray.get(handle.__ray_call__.remote(lambda _: os.getpid()), timeout=within_s)
        except (ValueError, ray.exceptions.RayError):  # gone, or going
            continue
        found[name.removeprefix(prefix)] = pid
    return found


def wait_for_replicas(n: int, within_s: float = 240.0) -> dict[str, int]:
    """The replicas, once there are ``n``."""
    until = time.monotonic() + within_s
    while len(found := replicas()) != n:
        assert time.monotonic() < until, found
        time.sleep(0.5)
    return found


def kill(pid: int) -> float:
    """End a replica's process in one moment.

    Returns:
        When (monotonic), once it is gone.
    """
    title = Path(f"/proc/{pid}/cmdline").read_bytes()
    assert b"ServeReplica:longreel:replica" in title, title[:80]
    at = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    with suppress(OSError):  # it is gone between a look and the next
        while Path(f"/proc/{pid}/cmdline").read_bytes():
            time.sleep(0.01)
    return at


def kill_directory(state: str) -> None:
    """End the directory of ``state``; Ray starts it again."""
    ray.kill(directory_handle(directory_name(state)), no_restart=False)
