"""A deployment of two replicas to lose, and what undisturbed sessions say on it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from mod.checkpoint import TINY
from pipelines.cluster import connected
from serve.app import ReplicaPlan, deploy
from tests.ports import free_ports
from tests.serve.killing import kill, replicas
from tests.serve.scripts import script
from tests.serve.survival import Client, Live, drive, live
from tests.serve.transcripts import REPLY_S, Event, assert_same

SEEDS, FRAMES = range(6), 14
IDLE_S = 15.0


@dataclass(frozen=True)
class Service:
    """A deployed application with two replicas."""

    address: str
    plan: ReplicaPlan
    http: tuple[str, int]

    @property
    def state(self) -> str:
        """Uri of its state store."""
        assert self.plan.state is not None
        return self.plan.state


@contextmanager
def deployed(state: str) -> Iterator[Service]:
    """A cluster and the application on it; tests leave two replicas."""
    (port,) = free_ports(1)
    with connected("local"):
        plan = ReplicaPlan(TINY, min_replicas=2, max_replicas=2, state=state, idle_s=IDLE_S)
        deploy(plan, http=("127.0.0.1", port))
        yield Service(f"http://127.0.0.1:{port}", plan, ("127.0.0.1", port))


def undisturbed(service: Service) -> list[list[Event]]:
    """What the sessions of ``SEEDS`` say when nothing happens to them."""

    async def run() -> list[list[Event]]:
        async with live(service.address, [f"calm-{seed}" for seed in SEEDS]) as sessions:
            await asyncio.gather(
                *(
                    drive(client, script(seed, FRAMES))
                    for seed, client in zip(SEEDS, sessions.clients, strict=True)
                )
            )
            found = await sessions.transcripts()
            await sessions.end()
            return found

    transcripts = asyncio.run(run())
    kinds = {event.type for told in transcripts for event in told}
    assert kinds >= {"frame.seen", "narration", "response.delta", "response.done"}
    return transcripts


async def owner(client: Client) -> tuple[str, int]:
    """The replica that has the session, and the assignment's epoch."""
    view = await client.view()
    return view["replica"], view["epoch"]


async def kill_owner(client: Client) -> str:
    """End the replica that has the session; returns its id."""
    name, _ = await owner(client)
    found = await asyncio.to_thread(replicas)
    await asyncio.to_thread(kill, found[name])
    return name


async def acknowledged(sessions: Live, n: int) -> None:
    """Wait until each client had that many pushes acknowledged."""
    async with asyncio.timeout(REPLY_S):
        while min(len(client.acknowledged) for client in sessions.clients) < n:
            await asyncio.sleep(0.02)


def assert_all_same(told: list[list[Event]], calm: list[list[Event]]) -> None:
    for one, other in zip(told, calm, strict=False):
        assert_same(one, other)
