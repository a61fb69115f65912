"""A job on a cluster of several nodes that loses a node, or its driver, while it works."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from tests.pipelines.conftest import Job
from tests.pipelines.job_runs import (
    JOB_TIMEOUT_S,
    MARK,
    OPTIONS,
    ROLES,
    acting,
    assert_same_rows,
    ended,
    gone,
    longreel,
    marked,
    rows,
    started,
)

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long]


@dataclass
class Nodes:
    """A head without CPUs and worker nodes, each with a mark that its processes inherit."""

    cluster: Cluster
    workers: dict[str, Any] = field(default_factory=dict)

    def add(self, **arguments: Any) -> None:
        mark = uuid.uuid4().hex
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(MARK, mark)
            node = self.cluster.add_node(include_dashboard=False, **arguments)
        if node is not self.cluster.head_node:
            self.workers[mark] = node

    def where(self, role: str) -> list[str]:
        """The marks of the worker nodes on which a role is at work."""
        return [mark for mark in self.workers if acting(mark, role)]

    def wait_for_work(self, process: subprocess.Popen[str], role: str = "worker") -> None:
        """Waits until the workers, and a role on a worker node, have been at work for a while."""
        deadline = time.monotonic() + JOB_TIMEOUT_S
        while not (self.where("worker") and self.where(role)):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, {name: self.where(name) for name in ROLES}
            time.sleep(0.1)
        time.sleep(2)
        assert process.poll() is None, "it ended before anything was lost"

    def lose(self, mark: str) -> None:
        """Ends everything on a node in one moment, as a power cut does."""
        for pid in marked(mark):
            os.kill(pid, signal.SIGKILL)
        self.cluster.remove_node(self.workers.pop(mark), allow_graceful=False)


@pytest.fixture(scope="module")
def cluster_nodes() -> Iterator[Nodes]:
    nodes = Nodes(Cluster())
    try:
        nodes.add(num_cpus=0, dashboard_agent_listen_port=0)
        yield nodes
    finally:
        marks = list(nodes.workers)
        nodes.cluster.shutdown()
        for mark in marks:
            gone(mark, within_s=10)


@pytest.fixture
def nodes(cluster_nodes: Nodes) -> Nodes:
    """Two worker nodes, whatever the last test lost."""
    while len(cluster_nodes.workers) < 2:
        cluster_nodes.add(num_cpus=2)
    return cluster_nodes


@pytest.mark.parametrize("role", ["replica", "worker"])
def test_a_node_lost(role: str, job: Job, nodes: Nodes, tmp_path: Path) -> None:
    """Guards against a job that hangs or loses rows when a machine of its cluster dies."""
    assert job.run.code == 3, job.run.said
    dest = tmp_path / "rows"
    command = ["summarize", *job.sources.arguments, "-o", str(dest), *OPTIONS]
    command += ["--address", nodes.cluster.address, "--workers", "2"]
    with started(*command) as process:
        nodes.wait_for_work(process, role)
        print({name: nodes.where(name) for name in ROLES})
        before = rows(dest, "segments") if (dest / "segments").exists() else []
        lost = nodes.where(role)[0]
        nodes.lose(lost)
        run = ended(process)
    print(f"{run.took_s:.1f} s after the loss: {run.said}")
    if run.code != job.run.code:
        nodes.add(num_cpus=2)
        again = longreel(*command)
        assert again.code == job.run.code, again.said
    after = rows(dest, "segments")
    assert [row for row in before if row not in after] == [], "finished work done again"
    assert_same_rows(dest, job.dest)


def test_a_driver_lost(job: Job, nodes: Nodes, tmp_path: Path) -> None:
    """Guards against rows written by what a dead driver left on a cluster that lives on.

    The next command starts at once, and finds the model that the dead one deployed.
    """
    assert job.run.code == 3, job.run.said
    dest = tmp_path / "rows"
    command = ["summarize", *job.sources.arguments, "-o", str(dest), *OPTIONS]
    command += ["--address", nodes.cluster.address, "--workers", "2"]
    with started(*command) as process:
        nodes.wait_for_work(process)
        os.kill(process.pid, signal.SIGKILL)
        run = longreel(*command)
    assert run.code == job.run.code, run.said
    assert_same_rows(dest, job.dest)
