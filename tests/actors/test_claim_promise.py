"""One cluster at a time serves from a state store: random histories, held against what is promised.

Written from the pages alone. Nothing here knows in what order the code reads and writes; every call
of every cluster may be stalled or fail at any of its calls to the store.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from actors import claim, directory, objects, owners
from actors.directory import Directory, DirectoryError
from actors.statestore import StateStore
from tests.actors.clusters import LOAD, Cluster, Fate, World, found, intercept

pytestmark = pytest.mark.waits

FIRST, SEEDS = int(os.environ.get("FIRST", "0")), int(os.environ.get("SEEDS", "25"))
#: Of those that broke the promise once, one in fifty did.
HISTORIES = [
    *range(FIRST, FIRST + SEEDS),
    *(pytest.param(FIRST + SEEDS + n, marks=pytest.mark.long) for n in range(300)),
]

WRITER = """
import asyncio, sys
from actors.directory import Directory
from actors.sessionlog import SessionLog
from actors.statestore import Record, StateStore
from tests.actors.clusters import LOAD, REFUSALS

async def main(uri):
    directory = Directory(uri, "a")
    await directory.report("a-1", "A-1", LOAD)
    manifest = await directory.open("s", {}, "token")
    log = SessionLog(StateStore(uri), "a-1")
    try:
        for item in range(1, 100000):
            record = Record(manifest.life, manifest.epoch, item, "input", {"item": item})
            await asyncio.wrap_future(log.append([record]))
            print(item, flush=True)
    except REFUSALS:
        print("refused", flush=True)
    log.close()

asyncio.run(main(sys.argv[1]))
"""


def _fate(rng: random.Random) -> Fate:
    kind = rng.random()
    if kind < 0.55:
        return Fate()
    return Fate(
        at=rng.randint(1, 6),
        stall=kind < 0.75,
        dies=kind > 0.9,
        late=rng.random() < 0.5,
        times=rng.choice((1, 3)),
    )


async def _history(uri: str, seed: int) -> None:
    world = World(uri, seed)
    rng = world.rng
    await world.call(world.cluster().start(), Fate())
    for _ in range(rng.randint(15, 45)):
        cluster = rng.choice(world.clusters[-2:])
        session = f"s{rng.randrange(3)}"
        calls: list[tuple[int, Callable[[], Coroutine[Any, Any, None]]]] = [
            (4, partial(cluster.open, session)),
            (12, partial(cluster.append, session)),
            (5, partial(cluster.keep, session)),
            (2, partial(cluster.close, session)),
            (1, cluster.lose_owner),
            (1, cluster.release),
        ]
        if len(world.clusters) < 5:
            calls.append((3, lambda: world.cluster().start()))
        (_, make) = rng.choices(calls, [weight for weight, _ in calls])[0]
        await world.call(make(), _fate(rng))
        if world.going and rng.random() < 0.25:
            fate, task = rng.choice(world.going)
            fate.go.set()
            await asyncio.wait([task], timeout=0.02)
        world.going = [each for each in world.going if not each[1].done() or each[1].exception()]
    await _take_over(world)
    await world.wake_all()
    last = world.cluster()
    await last.start()
    await world.check(last)
    # Whom the last cluster needed nothing of it has not fenced yet, as it does within seconds.
    world.from_memory = False
    await _old_ones_are_refused(world, last)
    await world.check(last)
    await last.release()
    following = world.cluster()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(claim, "STALE_S", 20.0)
        await following.start()
    await world.check(following)
    for cluster in world.clusters:
        cluster.end()


async def _take_over(world: World) -> None:
    """A new cluster has the store; a claim of before that was on its way may come first."""
    for _ in range(len(world.going) + 1):
        cluster = world.cluster()
        await cluster.start()
        with suppress(DirectoryError):
            await cluster._up().manifests()
            return
    raise AssertionError("nobody can take the store over")


async def _old_ones_are_refused(world: World, last: Cluster) -> None:
    for cluster in world.clusters:
        if cluster is last or cluster.directory is None:
            continue
        with pytest.raises(DirectoryError):
            await cluster.open("late")
        for session in ("s0", "s1", "s2"):
            asked = {key: told.close_asked for key, told in world.told.items()}
            before = {key: list(told.inputs) for key, told in world.told.items()}
            await world.call(cluster.append(session), Fate())
            await world.call(cluster.keep(session), Fate())
            await world.call(cluster.close(session), Fate())
            for key, told in world.told.items():
                assert told.inputs == before[key], "an input was taken by a cluster of before"
                assert told.close_asked == asked[key] or not told.closed
                told.close_asked = asked[key]


@pytest.mark.slow
@pytest.mark.parametrize("seed", HISTORIES)
def test_whatever_anybody_was_told_is_found_by_the_cluster_that_has_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Guards against two clusters that both say yes, and against what is lost between them."""
    monkeypatch.setattr(claim, "STALE_S", 0.0)
    for module in (directory, owners):
        monkeypatch.setattr(module, "PATIENCE_S", 0.05)
    intercept(monkeypatch)
    asyncio.run(_history(str(tmp_path / "state"), seed))


def test_of_two_that_take_over_at_once_each_has_a_term_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against the loser's late manifest in the place of the winner's: they had one name."""
    monkeypatch.setattr(claim, "STALE_S", 0.0)
    uri = str(tmp_path / "state")
    assert claim.StoreClaim(uri, "gone").look()
    ours = sorted((claim.StoreClaim(uri, name) for name in "pq"), key=lambda each: each._name)
    write = objects.write_bytes
    terms = []

    def other_first(uri: str, data: bytes) -> None:
        monkeypatch.setattr(claim, "write_bytes", write)
        assert ours[0].look()
        terms.append(ours[0].term)
        write(uri, data)

    monkeypatch.setattr(claim, "write_bytes", other_first)
    assert ours[1].look()
    assert ours[1].term > terms[0]
    assert not ours[0].renew()


@pytest.mark.slow
def test_a_process_that_slept_amid_its_writes_says_nothing_that_is_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against a real process whose writes go on, and are acknowledged, when it wakes up."""
    monkeypatch.setattr(claim, "STALE_S", 0.0)
    uri = str(tmp_path / "state")

    async def take_over() -> list[int]:
        later = Directory(uri, "b")
        await later.report("b-1", "B-1", LOAD)
        return found(StateStore(uri), await later.locate("s"))

    command = [sys.executable, "-c", WRITER, uri]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        try:
            assert writer.stdout is not None
            lines = [writer.stdout.readline() for _ in range(20)]
            writer.send_signal(signal.SIGSTOP)
            items = asyncio.run(take_over())
            writer.send_signal(signal.SIGCONT)
            lines += writer.stdout.read().splitlines()
        finally:
            writer.kill()
    *told, last = [line.strip() for line in lines]
    assert last == "refused"
    assert [int(item) for item in told] == items[: len(told)]
    assert items == list(range(1, len(items) + 1))
