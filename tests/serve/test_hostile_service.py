"""A service under everything hostile at once: nobody dies, nothing inside is fetched, and a
session beside it says what it says undisturbed.
"""

from __future__ import annotations

import asyncio
from itertools import chain

import pytest

from bench.hostile_service import assault
from infra.hostile.bombs import bombs
from infra.hostile.mutations import mutated
from infra.hostile.seeds import seeds
from mod.checkpoint import TINY
from pipelines.cluster import connected
from serve.app import ReplicaPlan, deploy
from tests.ports import free_ports
from tests.serve.killing import replicas
from tests.serve.scripts import script
from tests.serve.survival import drive, live
from tests.serve.transcripts import assert_same

_SLOW_BOMBS = ("thousand scans", "49 megapixels")


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.slow
def test_nothing_hostile_stops_a_replica_or_disturbs_a_session(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Guards all clients against one of them."""
    (port,) = free_ports(1)
    address = f"http://127.0.0.1:{port}"
    small = [bomb for bomb in bombs() if not any(name in bomb.name for name in _SLOW_BOMBS)]
    files = list(chain(mutated(seeds(), 40), small))

    def processes() -> list[dict[str, int]]:
        return [replicas(deployment=name) for name in ("replica", "gateway")]

    async def run() -> None:
        async with live(address, ["calm"]) as sessions:
            await drive(sessions.clients[0], script(3, 14))
            (calm,) = await sessions.transcripts()
            await sessions.end()
        before = await asyncio.to_thread(processes)
        async with live(address, ["bystander"]) as sessions:
            under = asyncio.create_task(assault(address, files))
            await drive(sessions.clients[0], script(3, 14), pace_s=0.5)
            found = await under
            (told,) = await sessions.transcripts()
            await sessions.end()
        assert found.wrong == []
        assert found.private_hits == 0
        assert found.urls > 50
        # A protocol error, too much, or more than is listened to: each is ended by the server.
        ended = {"1002", "1003", "1007", "1009", "1011", "4429", "cut"}
        open_ones = {name for name, how in found.sockets.items() if how not in ended}
        # These are no error, or answered like any other message.
        assert open_ones <= {"half a frame", "half of a handshake", "pictures without an end",
                             "pings of the protocol, unread"}, found.sockets  # fmt: skip
        assert found.sockets["pings of ours, unread"] == "4429"
        assert_same(told, calm)
        assert await asyncio.to_thread(processes) == before

    with connected("local"):
        state = str(tmp_path_factory.mktemp("state"))
        deploy(ReplicaPlan(TINY, state=state), http=("127.0.0.1", port))
        asyncio.run(run())
