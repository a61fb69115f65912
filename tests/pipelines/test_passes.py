"""Pools of actors: how many begin, and that too few CPUs hold up none of them."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pyarrow as pa
import pytest
import ray

from pipelines.cluster import connected
from pipelines.passes import through

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long]

CPUS = 3
SCHEMA = pa.schema([("n", pa.int64())])


class Gate:
    """Counts who has come."""

    def __init__(self) -> None:
        self._come = 0

    def come(self) -> None:
        self._come += 1

    def count(self) -> int:
        return self._come


_GateActor = ray.remote(num_cpus=0)(Gate)


class Together:
    """An actor that is not ready before others are there as well."""

    def __init__(self, gate: ray.actor.ActorHandle, wanted: int) -> None:
        ray.get(gate.come.remote())
        until = time.monotonic() + 120
        while ray.get(gate.count.remote()) < wanted:
            if time.monotonic() > until:
                raise RuntimeError("the others did not begin")
            time.sleep(0.05)

    def __call__(self, batch: pa.Table) -> pa.Table:
        return batch


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(num_cpus=CPUS, include_dashboard=False, log_to_driver=False)
    with connected():
        yield
    ray.shutdown()


@pytest.mark.parametrize("workers", [2, 20])
def test_actors_begin_together_as_far_as_there_is_room(workers: int) -> None:
    """Guards against a second actor that begins when the first is at work, and one that never
    finds a CPU."""
    gate = _GateActor.remote()
    arguments = (gate, min(workers, CPUS))
    batches = [[{"n": n}] for n in range(30)]
    done = through(Together, arguments, batches, SCHEMA, workers)
    assert sorted(row["n"] for row in done.iter_rows()) == list(range(30))
    assert ray.get(gate.count.remote()) == min(workers, CPUS)
