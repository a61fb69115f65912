"""The application on a real Ray Serve: HTTP routes, narration, and what a bad call leaves."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import httpx
import numpy as np
import pytest
from ray.serve.handle import DeploymentHandle

from longreel.errors import UsageError
from mod.checkpoint import TINY, find_checkpoint
from mod.world.streams import World
from pipelines.cluster import connected
from serve.app import ReplicaPlan, deploy, replica_handle, require_same, running
from tests.ports import free_ports

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of a running application; cluster and application end with the module."""
    (port,) = free_ports(1)
    with connected("local"):
        assert not running()
        state = str(tmp_path_factory.mktemp("state"))
        deploy(ReplicaPlan(TINY, state=state), http=("127.0.0.1", port))
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def replica(address: str) -> DeploymentHandle:
    return replica_handle()


def test_the_gateway_answers(address: str) -> None:
    assert httpx.get(f"{address}/healthz").json() == {"status": "ok"}
    assert httpx.get(f"{address}/readyz").status_code == 200
    (model,) = httpx.get(f"{address}/v1/models").json()["data"]
    assert model["id"] == TINY
    assert model["revision"] == find_checkpoint(TINY).revision
    assert (model["router"], model["quantize"]) == ("bounded", None)
    assert httpx.get(f"{address}/nowhere").status_code == 404
    assert running()


def test_a_segment_is_narrated(replica: DeploymentHandle) -> None:
    frames = np.stack([s.frame for s in islice(World(5), 20)])
    told = replica.narrate.remote(frames, "Narrate what changes.", 0.0).result(timeout_s=120)
    assert len(told.texts) == len(told.salience) == 20
    assert told.texts[0]
    assert told.summary
    assert all(0.0 <= p <= 1.0 for p in told.salience)
    assert told.vision_tokens == 200
    assert told.processed_token_layers == 20 * (10 + 2) * 3
    again = replica.narrate.remote(frames, "Narrate what changes.", 0.0).result(timeout_s=120)
    assert again.texts == told.texts
    assert again.kv_bytes == told.kv_bytes


def test_segments_side_by_side_are_narrated_as_alone(replica: DeploymentHandle) -> None:
    """Guards shared steps: who else is in the replica changes no word."""
    seen = [np.stack([s.frame for s in islice(World(seed), 12)]) for seed in range(6)]
    alone = [replica.narrate.remote(f, "Narrate what changes.", 0.0).result() for f in seen]
    together = [replica.narrate.remote(f, "Narrate what changes.", 0.0) for f in seen]
    for one, other in zip(alone, together, strict=True):
        found = other.result(timeout_s=120)
        assert (found.texts, found.summary, found.kv_bytes) == (
            one.texts,
            one.summary,
            one.kv_bytes,
        )
        assert found.model_s > 0


def test_a_bad_call_fails_alone(replica: DeploymentHandle) -> None:
    """Guards against a picture of the wrong shape taking the replica with it."""
    wrong = np.zeros((2, 10, 10, 3), np.uint8)
    with pytest.raises(Exception, match=r"frames must be \(n, 96, 96, 3\) uint8"):
        replica.narrate.remote(wrong, "x", 0.0).result(timeout_s=120)
    assert replica.summarize.remote(["A red scene."]).result(timeout_s=120)


def test_a_job_for_another_model_is_refused(address: str) -> None:
    """Guards against rows that name one model and come from another."""
    have = find_checkpoint(TINY)
    require_same(ReplicaPlan(TINY), have)
    with pytest.raises(UsageError, match=r"keep ratio 0\.2"):
        require_same(ReplicaPlan(TINY, keep_ratio=0.5), have)
    with pytest.raises(UsageError, match="uses router the model's own, the job wants norm"):
        require_same(ReplicaPlan(TINY, router="norm"), have)
    with pytest.raises(UsageError, match="has weights whole, the job wants them int8"):
        require_same(ReplicaPlan(TINY, quantize="int8"), have)
