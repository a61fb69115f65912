"""Thirty live sessions on a service whose parts are ended under them, one after the other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ray import serve

from infra.objectstore import ObjectStore
from mod.checkpoint import TINY
from pipelines.cluster import connected
from serve.app import ReplicaPlan, deploy
from serve.directory import stop_directory
from serve.live.rounds import REPORT_S
from tests.ports import free_ports
from tests.serve.killing import kill, kill_directory, replicas, wait_for_replicas
from tests.serve.scripts import script
from tests.serve.survival import Client, Live, drive, live
from tests.serve.transcripts import Event, assert_same, told_anew

pytestmark = [pytest.mark.chaos, pytest.mark.ray, pytest.mark.slow, pytest.mark.objectstore]
SESSIONS, FILMS, FRAMES, PACE_S, IDLE_S = 30, 10, 24, 1.0, 5.0
#: Steps of each script that wait for the last loss.
LEFT = 5


@pytest.fixture(scope="module")
def cluster(objectstore: ObjectStore) -> Iterator[None]:
    """Started after the object store, whose address its processes inherit."""
    with connected("local"):
        yield


@pytest.fixture
def state(request: pytest.FixtureRequest, cluster: None, tmp_path: Path) -> Iterator[str]:
    """Uri of a fresh state store of the kind that the test names."""
    uri = str(tmp_path / "state")
    if request.param == "s3":
        uri = f"s3://{request.getfixturevalue('bucket')}/state"
    yield uri
    serve.shutdown()
    stop_directory(uri)


def spread(seconds: Sequence[float]) -> str:
    """The distribution in one line."""
    if not seconds:
        return "none"
    marks = " ".join(f"p{q}={np.percentile(seconds, q):.2f}" for q in (0, 50, 90, 100))
    return f"n={len(seconds)} {marks} s"


class Chaos:
    """Ends parts while the sessions run, and keeps what each cost."""

    def __init__(self, sessions: Live, state: str, rng: np.random.Generator) -> None:
        self.sessions, self.state, self._rng = sessions, state, rng
        self.ended: list[tuple[str, float, list[int]]] = []

    async def pause(self, from_s: float = 0.2, to_s: float = 2.5) -> None:
        """For a time that the seed decides."""
        await asyncio.sleep(float(self._rng.uniform(from_s, to_s)))

    async def kill_replica(self, label: str) -> None:
        """The one that has most sessions."""
        views = await asyncio.gather(*(client.view() for client in self.sessions.clients))
        found = await asyncio.to_thread(replicas)
        held = {name: [n for n, v in enumerate(views) if v["replica"] == name] for name in found}
        name = max(held, key=lambda each: len(held[each]))
        at = await asyncio.to_thread(kill, found[name])
        self.ended.append((label, at, held[name]))

    def report(self) -> None:
        """Print the seconds from each kill to the next acknowledged frame of each session."""
        for label, at, lost in self.ended:
            took = [
                min((t for t in client.acknowledged if t > at), default=np.inf) - at
                for client in self.sessions.clients
            ]
            others = [s for n, s in enumerate(took) if n not in lost and np.isfinite(s)]
            theirs = [took[n] for n in lost if np.isfinite(took[n])]
            print(f"  {label}: of its sessions {spread(theirs)}; of others {spread(others)}")
        repeats = [repeat for client in self.sessions.clients for repeat in client.repeats]
        connections = sum(f.connections for f in self.sessions.followers)
        print(f"  {len(repeats)} requests sent again, {connections} connections for events")


async def calmly(address: str, seed: int) -> list[list[Event]]:
    """What the films' sessions say when nothing happens."""
    async with live(address, [f"calm-{seed}-{n}" for n in range(FILMS)]) as sessions:
        await asyncio.gather(
            *(
                drive(client, script(seed * FILMS + n, FRAMES))
                for n, client in enumerate(sessions.clients)
            )
        )
        found = await sessions.transcripts()
        await sessions.end()
        return found


@pytest.mark.parametrize(
    ("state", "seed"),
    [("folder", 1), ("folder", 2), ("folder", 3), ("s3", 4)],
    indirect=["state"],
)
def test_nothing_acknowledged_is_lost(state: str, seed: int) -> None:
    """Guards the promise: replicas and directory end, the service shrinks, no word is another."""
    (port,) = free_ports(1)
    address, http = f"http://127.0.0.1:{port}", ("127.0.0.1", port)
    plan = ReplicaPlan(TINY, min_replicas=3, max_replicas=3, state=state, idle_s=IDLE_S)
    deploy(plan, http=http)
    wait_for_replicas(3)
    calm = asyncio.run(calmly(address, seed))
    # Where this machine is slow, a replica was late with these: what it says of them shall be past.
    time.sleep(3 * REPORT_S)
    rng = np.random.default_rng(seed)

    async def run() -> None:
        names = [f"hurt-{seed}-{n}" for n in range(SESSIONS)]
        async with live(address, names) as sessions:
            chaos = Chaos(sessions, state, rng)
            at_first = await asyncio.gather(*(client.view() for client in sessions.clients))
            assert len({view["replica"] for view in at_first}) == 3, "sessions are not spread"
            going_on = asyncio.Event()

            async def act(n: int, client: Client) -> None:
                # However fast the machine is, each has something left for the last loss.
                steps = script(seed * FILMS + n % FILMS, FRAMES)
                await drive(client, steps[:-LEFT], PACE_S)
                await going_on.wait()
                await drive(client, steps[-LEFT:], PACE_S)

            driving = asyncio.gather(*(act(n, client) for n, client in enumerate(sessions.clients)))
            await chaos.pause()
            await chaos.kill_replica("replica killed")
            await chaos.pause()
            shrink = replace(plan, min_replicas=1, max_replicas=1)
            await asyncio.to_thread(deploy, shrink, http=http)
            await asyncio.to_thread(wait_for_replicas, 1)
            await chaos.pause()
            await asyncio.to_thread(kill_directory, state)
            await chaos.pause()
            # A part of the sessions rests; the replica ends about when it keeps them.
            for client in sessions.clients[::3]:
                client.resumed.clear()
            await chaos.pause(IDLE_S - 1, IDLE_S + 2)
            going_on.set()
            await chaos.pause(0.0, 1.0)
            await chaos.kill_replica("last replica killed as sessions are offloaded")
            for client in sessions.clients:
                client.resumed.set()
            await driving
            print(f"\nseed {seed}, {state.partition('://')[0] if '://' in state else 'folder'}")
            chaos.report()
            told = await sessions.transcripts()
            anew = await asyncio.gather(
                *(
                    told_anew(sessions.http, client.session, len(events))
                    for client, events in zip(sessions.clients, told, strict=True)
                )
            )
            for n, (events, again) in enumerate(zip(told, anew, strict=True)):
                assert_same(events, calm[n % FILMS])
                assert_same(again, events)
            await sessions.end()

    asyncio.run(run())
