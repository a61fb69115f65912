"""Replicas that come with live work and go without it, on a real cluster."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from ray import serve

from mod.checkpoint import TINY
from pipelines.cluster import connected
from serve.app import ReplicaPlan, deploy
from serve.handles import APP
from tests.ports import free_ports
from tests.serve.scripts import script
from tests.serve.survival import Client, drive, live, told_all
from tests.serve.transcripts import REPLY_S, Follower, assert_same

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.long]

#: Any live work at all asks for more replicas, and none is missed for long.
AIMS = {"busy": 1e-4, "lead_s": 0.0, "hold_s": 4.0, "empty_s": 4.0}
FRAMES = 14


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    (port,) = free_ports(1)
    state = str(tmp_path_factory.mktemp("state"))
    with connected("local"):
        plan = ReplicaPlan(TINY, min_replicas=0, max_replicas=2, state=state, idle_s=3.0, aims=AIMS)
        deploy(plan, http=("127.0.0.1", port))
        yield f"http://127.0.0.1:{port}"


def _running() -> int:
    states = serve.status().applications[APP].deployments["replica"].replica_states
    return int(states.get("RUNNING", 0))


async def _until(done: Callable[[int], bool], what: str) -> None:
    deadline = time.monotonic() + 60.0
    while not done(n := await asyncio.to_thread(_running)):
        assert time.monotonic() < deadline, f"{what}: {n} replicas run"
        await asyncio.sleep(0.2)


def test_replicas_follow_live_work_down_to_none_and_back(service: str) -> None:
    """Guards the wiring from a replica's report to Serve's target, both ways; and that a session
    goes on as if nothing had happened when the last replica has gone and another came."""
    steps = script(1, FRAMES)

    async def run() -> None:
        async with live(service, ["calm"]) as sessions:
            await drive(sessions.clients[0], steps)
            (calm,) = await sessions.transcripts()
            await _until(lambda n: n == 2, "live work starts no replica")
            await sessions.end()
        async with httpx.AsyncClient(base_url=service, timeout=REPLY_S) as http:
            client = Client(http, "long")
            await client.open()
            await drive(client, steps[: len(steps) // 2])
            # Nobody awaits its events: it rests in the store.
            await _until(lambda n: n == 0, "replicas without work stay")
            await drive(client, steps[len(steps) // 2 :])
            await _until(lambda n: n > 0, "a session that is called for starts no replica")
            follower = Follower(http, "long")
            following = asyncio.create_task(follower.follow())
            assert_same(await follower.until(await told_all(client)), calm)
            following.cancel()

    asyncio.run(run())
