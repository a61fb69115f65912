"""Live sessions on a cluster of several nodes that loses the one which serves them."""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ray import serve
from ray.cluster_utils import Cluster

from mod.checkpoint import TINY
from pipelines.cluster import connected
from serve.app import ReplicaPlan, deploy
from tests.pipelines.job_runs import MARK, marked
from tests.ports import free_ports
from tests.serve.killing import replicas, wait_for_replicas
from tests.serve.scripts import script
from tests.serve.survival import drive, live
from tests.serve.transcripts import Event, assert_same

pytestmark = [pytest.mark.chaos, pytest.mark.ray, pytest.mark.slow]
SESSIONS, FRAMES = 8, 16


@dataclass
class Nodes:
    """A head, and worker nodes with a mark each that their processes inherit."""

    cluster: Cluster
    workers: dict[str, Any] = field(default_factory=dict)

    def add(self, **arguments: Any) -> None:
        """Start one more; the first is the head."""
        mark = uuid.uuid4().hex
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(MARK, mark)
            node = self.cluster.add_node(include_dashboard=False, **arguments)
        if node is not self.cluster.head_node:
            self.workers[mark] = node

    def lose(self, mark: str) -> None:
        """End everything on a node in one moment, as a power cut does."""
        for pid in marked(mark):
            os.kill(pid, signal.SIGKILL)
        self.cluster.remove_node(self.workers.pop(mark), allow_graceful=False)


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    """A head with room for one replica, and two worker nodes with room for one each."""
    cluster = Nodes(Cluster())
    try:
        cluster.add(num_cpus=1, dashboard_agent_listen_port=0)
        cluster.add(num_cpus=1)
        cluster.add(num_cpus=1)
        yield cluster
    finally:
        cluster.cluster.shutdown()


def test_a_lost_node_loses_nothing(nodes: Nodes, tmp_path: Path) -> None:
    """Guards the promise against a machine that is gone with all that ran on it."""
    (port,) = free_ports(1)
    address = f"http://127.0.0.1:{port}"
    plan = ReplicaPlan(
        TINY, min_replicas=2, max_replicas=2, state=str(tmp_path / "state"), idle_s=60
    )

    async def session_events(prefix: str, lose: bool) -> list[list[Event]]:
        async with live(address, [f"{prefix}-{n}" for n in range(SESSIONS)]) as sessions:
            driving = asyncio.gather(
                *(
                    drive(client, script(n, FRAMES), 0.5 if lose else 0.0)
                    for n, client in enumerate(sessions.clients)
                )
            )
            if lose:
                await asyncio.sleep(2)
                found = await asyncio.to_thread(replicas)
                on = {mark: set(marked(mark)) for mark in nodes.workers}
                name, mark = next((n, m) for m in on for n, pid in found.items() if pid in on[m])
                views = await asyncio.gather(*(client.view() for client in sessions.clients))
                assert name in {view["replica"] for view in views}
                at = asyncio.get_running_loop().time()
                await asyncio.to_thread(nodes.lose, mark)
            await driving
            if lose:
                took = [
                    min(t for t in client.acknowledged if t > at) - at
                    for client in sessions.clients
                ]
                print(f"seconds to the next acknowledged frame: {sorted(took)}")
                print([client.repeats for client in sessions.clients])
            return await sessions.transcripts()

    with connected(nodes.cluster.address):
        try:
            deploy(plan, http=("127.0.0.1", port))
            wait_for_replicas(2)
            calm = asyncio.run(session_events("calm", False))
            hurt = asyncio.run(session_events("hurt", True))
            for one, other in zip(hurt, calm, strict=True):
                assert_same(one, other)
        finally:
            serve.shutdown()
