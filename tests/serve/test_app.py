"""The application on a real Ray Serve: HTTP routes, narration, and what a bad call leaves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from ray.serve.handle import DeploymentHandle
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from longreel.client import APIError, Client
from longreel.errors import UsageError
from mod.checkpoint import TINY, find_checkpoint
from mod.world.streams import World
from pipelines.cluster import connected
from serve.app import ReplicaPlan, deploy, ensure
from serve.handles import replica_handle
from serve.keys.key import Limits, new_key
from serve.keys.keystore import revoke_key, write_key
from serve.routes.context import ApiSettings
from serve.served import Served
from tests.ports import free_ports
from tests.serve.routes_server import picture

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The state store of the application."""
    return str(tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="module")
def address(state: str) -> Iterator[str]:
    """The base URL of a running application; cluster and application end with the module."""
    (port,) = free_ports(1)
    with connected("local"):
        deploy(ReplicaPlan(TINY, state=state), http=("127.0.0.1", port))
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def replica(address: str) -> DeploymentHandle:
    return replica_handle()


def test_the_gateway_answers(address: str) -> None:
    """Guards against an application that Ray Serve calls healthy and that answers nothing."""
    assert httpx.get(f"{address}/healthz").json() == {"status": "ok"}
    assert httpx.get(f"{address}/readyz").status_code == 200
    (model,) = httpx.get(f"{address}/v1/models").json()["data"]
    assert model["id"] == TINY
    assert model["revision"] == find_checkpoint(TINY).revision
    assert (model["router"], model["quantize"]) == ("bounded", None)
    assert httpx.get(f"{address}/nowhere").status_code == 404


def test_a_segment_is_narrated(replica: DeploymentHandle) -> None:
    """Guards against a replica whose words do not come back as a row needs them."""
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
    wanted = Served(TINY, have.revision, have.keep_ratio)
    ensure(ReplicaPlan(TINY), wanted)
    with pytest.raises(UsageError, match=r"keep ratio 0\.2, the job wants 0\.5"):
        ensure(ReplicaPlan(TINY, keep_ratio=0.5), replace(wanted, keep_ratio=0.5))
    assert httpx.get(f"{address}/healthz").json() == {"status": "ok"}  # it was not replaced


def test_what_another_model_would_say_is_in_no_row(replica: DeploymentHandle) -> None:
    """Guards against a service that was changed amid a job, whose rows then name the one before."""
    have = replica.describe.remote().result()
    frames, other = np.zeros((2, 96, 96, 3), np.uint8), replace(have, router="norm")
    assert replica.narrate.remote(frames, "x", 0.0, wanted=have).result(timeout_s=120).texts
    with pytest.raises(Exception, match="uses router the model's own, the job wants norm"):
        replica.narrate.remote(frames, "x", 0.0, wanted=other).result(timeout_s=120)
    with pytest.raises(Exception, match="uses router the model's own, the job wants norm"):
        replica.follow.remote(frames, "x", 0.0, None, wanted=other).result(timeout_s=120)
    with pytest.raises(Exception, match="uses router the model's own, the job wants norm"):
        replica.summarize.remote(["A red scene."], wanted=other).result(timeout_s=120)


def test_keys_keep_clients_apart(address: str, state: str) -> None:
    """Guards the whole way: keys from a store to the gateway, owners through replicas and back.

    Comes last, since it makes the gateway ask for keys.
    """
    made = [new_key(name, Limits()) for name in ("hers", "his")]
    for key, _ in made:
        write_key(state, key)
    hers, his = (text for _, text in made)
    http = ("127.0.0.1", int(address.rpartition(":")[2]))
    deploy(ReplicaPlan(TINY, state=state), http=http, settings=ApiSettings(keys=True))

    def client(key: str) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0)

    with pytest.raises(openai.AuthenticationError) as refused:
        client("none").models.list()
    assert refused.value.code == "invalid_api_key"
    file = client(hers).files.create(file=("a.jpg", picture(200)), purpose="vision")
    messages: Any = [
        {"role": "user", "content": [{"type": "file", "file": {"file_id": file.id}}]},
    ]
    answer = client(hers).chat.completions.create(model=TINY, messages=messages)
    assert answer.choices[0].message.content
    with pytest.raises(openai.NotFoundError):
        client(his).chat.completions.create(model=TINY, messages=messages)
    with pytest.raises(openai.NotFoundError):
        client(his).files.retrieve(file.id)
    assert client(his).files.list().data == []

    with Client(address, api_key=hers) as ours, Client(address, api_key=his) as theirs:
        session = ours.session()
        session.push(picture(100))
        with pytest.raises(APIError, match="session_not_found"):
            theirs.session(id=session.id)
        assert theirs.sessions() == []
        # Another gateway, which knows owners from the store alone.
        other = ApiSettings(keys=True, max_pixels=10**6)
        deploy(ReplicaPlan(TINY, state=state), http=http, settings=other)
        assert [s.id for s in ours.sessions()] == [session.id]
        with pytest.raises(APIError, match="session_not_found"):
            theirs.session(id=session.id)
        _sockets_ask_too(address.replace("http", "ws"), session.id, hers, his)
        listening = iter(session.events())
        assert next(listening).type
        revoke_key(state, made[0][0].id)
        with pytest.raises(APIError, match="invalid_api_key"):
            for _ in listening:
                pass


def _sockets_ask_too(address: str, session: str, hers: str, his: str) -> None:
    there = f"{address}/v1/sessions/{session}/stream"
    with pytest.raises(InvalidStatus) as refused, connect(there):
        pass
    assert refused.value.response.status_code == 401
    protocols = [Subprotocol("longreel"), Subprotocol(f"longreel-key.{hers}")]
    with connect(there, subprotocols=protocols) as socket:
        assert socket.subprotocol == "longreel"
        assert json.loads(socket.recv())["session"]["id"] == session
    with connect(there, additional_headers={"Authorization": f"Bearer {his}"}) as socket:
        assert json.loads(socket.recv())["code"] == "session_not_found"
