"""Clusters on one state store as somebody sees them who knows what is promised and not how.

Each has a session directory and owners with their logs. A call of one may be stalled or made to
fail at any of its calls to the store, and woken when others have taken the store over; or the
directory dies there, and another that knows nothing is asked the same. What anybody was told is
written down here, and held against what the last cluster finds.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from actors import claim, statestore
from actors.directory import Directory, DirectoryError
from actors.placement import Load
from actors.sessionlog import FencedError, SessionLog
from actors.statestore import Manifest, Record, StateStore, effective
from longreel.errors import StorageError

LOAD = Load(free_bytes=2**30, capacity_bytes=2**30)
REFUSALS = (DirectoryError, StorageError, FencedError)
_STORAGE = ("delete_object", "exists", "list_objects", "read_bytes", "write_bytes")


class DiedError(Exception):
    """The directory that was asked is no more."""


@dataclass
class Life:
    """Of a directory's process."""

    over: bool = False


@dataclass
class Fate:
    """What befalls one call of a cluster at its ``at``-th call to the store, from 1 on.

    Attributes:
        stall: it waits there until ``go``; else it fails, ``times`` times in a row.
        dies: it does neither: the directory ends there, if it is the one that calls.
        late: after what it asked of the store was done, not before.
    """

    at: int = 0
    stall: bool = True
    late: bool = False
    times: int = 1
    dies: bool = False
    calls: int = 0
    stalled: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)

    def meet(self, late: bool) -> None:
        """Suffer it, if this is the time."""
        if not late:
            self.calls += 1
        life = _life.get()
        if life is not None and life.over:
            raise DiedError
        if not self.at or late != self.late:
            return
        if self.dies:
            if life is not None and self.calls == self.at:
                life.over = True
                raise DiedError
        elif self.stall and self.calls == self.at:
            self.stalled.set()
            assert self.go.wait(3), "nobody woke it"
            if life is not None and life.over:
                raise DiedError
        elif not self.stall and self.at <= self.calls < self.at + self.times:
            raise StorageError("SlowDown", "the store fails for a while")


_fate: ContextVar[Fate | None] = ContextVar("fate", default=None)
#: Of the directory that calls, in its calls.
_life: ContextVar[Life | None] = ContextVar("life", default=None)
_of_logs: dict[str, Fate] = {}


def intercept(patch: pytest.MonkeyPatch) -> None:
    """Let every call to the store meet its fate."""

    def meeting(call: Callable[..., Any]) -> Callable[..., Any]:
        def met(uri: str, *args: Any, **others: Any) -> Any:
            fate = _fate.get()
            if fate is None and "/owners/" in uri:
                fate = _of_logs.get(uri.partition("/owners/")[2].partition("/")[0])
            fate = fate or Fate()
            fate.meet(late=False)
            found = call(uri, *args, **others)
            if isinstance(found, Iterator):
                found = iter(list(found))
            fate.meet(late=True)
            return found

        return met

    for module in (claim, statestore):
        for name in _STORAGE:
            if hasattr(module, name):
                patch.setattr(module, name, meeting(getattr(module, name)))


@dataclass
class Told:
    """What clients were told of one life of a session, and what they asked for.

    Attributes:
        closed: the life that somebody was told is closed. Who still asks for it to be opened then,
            and is told neither yes nor no, may have opened another.
    """

    opened: bool = False
    close_asked: bool = False
    closed: str = ""
    inputs: list[int] = field(default_factory=list)
    asked: set[int] = field(default_factory=set)

    def acknowledge(self, now: list[int]) -> None:
        """``now`` is all that the owner has that acknowledged the last of it."""
        shorter, longer = sorted((self.inputs, now), key=len)
        assert longer[: len(shorter)] == shorter, f"two owners: {self.inputs} and {now}"
        self.inputs = longer


@dataclass
class Memory:
    """What an owner has of a session."""

    manifest: Manifest
    token: str
    items: list[int]
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Cluster:
    """One cluster: what its gateway and its replicas do."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.store = StateStore(world.uri)
        self.directory: Directory | None = None
        self.life, self._reviving = Life(), asyncio.Lock()
        self._locks: dict[tuple[str, str], asyncio.Lock] = {}
        self.logs: dict[str, SessionLog] = {}
        self.memory: dict[tuple[str, str], Memory] = {}
        self.ended = False

    async def start(self) -> None:
        """Claim the store and bring up two replicas."""
        self.directory = await asyncio.to_thread(Directory, self.world.uri, self.name)
        for _ in range(2):
            await self.add_owner()

    def _up(self) -> Directory:
        if self.directory is None:
            raise DirectoryError("unavailable", "it has not started")
        return self.directory

    async def ask(self, method: str, *args: Any, **others: Any) -> Any:
        """Call the directory, and the next one where it dies before it has answered."""
        while True:
            directory, life = self._up(), self.life
            token = _life.set(life)
            try:
                answer = await getattr(directory, method)(*args, **others)
                if not life.over:
                    return answer
            except DiedError:
                pass
            except Exception:
                if not life.over:
                    raise
            finally:
                _life.reset(token)
            async with self._reviving:
                if self.life is life:
                    self.directory = await asyncio.to_thread(Directory, self.world.uri, self.name)
                    self.life = Life()
                    for owner in self.logs:
                        await self.directory.report(owner, owner.upper(), LOAD)

    async def add_owner(self) -> None:
        """A replica more."""
        owner = f"{self.name}-{len(self.logs) + 1}"
        self.logs[owner] = SessionLog(self.store, owner)
        await self.ask("report", owner, owner.upper(), LOAD)

    async def lose_owner(self) -> None:
        """A replica that hangs is declared lost, and goes on writing as long as it may."""
        before = sorted(self.logs)
        await self.add_owner()
        owner = self.world.rng.choice(before or sorted(self.logs))
        await self.ask("lost", owner, "it hangs")

    async def open(self, session: str) -> None:
        """A client opens a session; of several who do under one id one is told yes."""
        token = f"{self.name}/{len(self.world.told)}"
        told = self.world.told[session, token] = Told()
        manifest = await self.ask("open", session, {"fps": 1}, token)
        assert manifest.options["token"] == token, "the life of another client"
        told.opened = True
        alive = [
            key
            for key, other in self.world.told.items()
            if key[0] == session and other.opened and not other.close_asked
        ]
        assert len(alive) <= 1, f"opened twice: {alive}"

    async def close(self, session: str) -> None:
        """A client closes it."""
        manifest = await self.ask("manifest", session)
        told = self.world.told[session, manifest.options["token"]]
        told.close_asked = True
        await self.ask("forget", manifest.life)
        told.closed = manifest.life
        for owner, log in self.logs.items():
            if self.memory.pop((owner, session), None):
                log.forget(manifest.life, 2**31)

    async def _memory(self, session: str) -> tuple[Manifest, Memory]:
        here = [memory for (_, name), memory in self.memory.items() if name == session]
        if here and self.world.from_memory and self.world.rng.random() < 0.5:
            # Who has it in memory does not ask anew: a gateway knows where it was of late.
            memory = self.world.rng.choice(here)
            return memory.manifest, memory
        manifest = await self.ask("locate", session)
        owner, token = str(manifest.owner), manifest.options["token"]
        known = self.memory.get((owner, session))
        if known is not None and known.token == token and known.manifest.epoch > manifest.epoch:
            raise DirectoryError("unavailable", "an assignment of before")
        async with self._taking(owner, session):
            known = self.memory.get((owner, session))
            if known is None or (known.token, known.manifest.epoch) != (token, manifest.epoch):
                now = await self.ask("manifest", session)
                if (now.owner, now.life, now.epoch) != (owner, manifest.life, manifest.epoch):
                    raise DirectoryError("unavailable", "an assignment of before")
                known = Memory(now, token, found(self.store, now))
                self.memory[owner, session] = known
        return manifest, known

    def _taking(self, owner: str, session: str) -> asyncio.Lock:
        """Held while an owner takes a session in, or lets it go."""
        return self._locks.setdefault((owner, session), asyncio.Lock())

    async def append(self, session: str) -> None:
        """A client gives an input."""
        manifest, memory = await self._memory(session)
        async with memory.lock:
            if self.memory.get((str(manifest.owner), session)) is not memory:
                raise DirectoryError("unavailable", "it was let go meanwhile")
            told = self.world.told[session, memory.token]
            item = self.world.next_input()
            told.asked.add(item)
            seq = len(memory.items) + 1
            record = Record(manifest.life, memory.manifest.epoch, seq, "input", {"item": item})
            owner = str(manifest.owner)
            fate = _fate.get()
            if fate is not None:
                _of_logs[owner] = fate
            await asyncio.wrap_future(self.logs[owner].append([record]))
            memory.items.append(item)
            told.acknowledge(list(memory.items))

    async def keep(self, session: str) -> None:
        """An owner takes a snapshot, and may let the session go."""
        manifest, memory = await self._memory(session)
        async with memory.lock:
            if self.memory.get((str(manifest.owner), session)) is not memory:
                raise DirectoryError("unavailable", "it was let go meanwhile")
            owner, seq = str(manifest.owner), len(memory.items)
            name = f"snapshot-{memory.manifest.epoch}-{seq}-{self.world.next_input()}"
            data = json.dumps(memory.items).encode()
            await asyncio.to_thread(self.store.write_snapshot, session, name, data)
            kept = partial(
                self.ask, "kept", manifest.life, memory.manifest.epoch, name, {"inputs": seq}
            )
            if self.world.rng.random() < 0.5:
                done = await kept(in_memory=True)
            else:
                async with self._taking(owner, session):
                    if self.memory.pop((owner, session), None) is not memory:
                        raise DirectoryError("unavailable", "it was let go meanwhile")
                    done = await kept(in_memory=False)
            if done:
                self.logs[owner].forget(manifest.life, seq)
            else:
                await asyncio.to_thread(self.store.delete_snapshot, session, name)
                self.memory.pop((owner, session), None)

    async def release(self) -> None:
        """It ends in an orderly way."""
        self.ended = True
        await self._up().release()

    def end(self) -> None:
        """Its threads end."""
        for log in self.logs.values():
            log.close()


def found(store: StateStore, manifest: Manifest) -> list[int]:
    """Inputs of a session as whoever takes it in finds them, in order."""
    token = _fate.set(Fate())
    try:
        items: list[int] = []
        if manifest.snapshot is not None:
            items = json.loads(store.read_snapshot(manifest.session, manifest.snapshot))
        records = [
            record
            for owner in manifest.tail
            for record in store.records(owner)
            if record.life == manifest.life and record.seq > len(items)
        ]
        now = store.manifest(manifest.session)
        if now is None or (now.life, now.epoch) != (manifest.life, manifest.epoch):
            raise DirectoryError("unavailable", "it is another's meanwhile")
        later = effective(records)
        expected = list(range(len(items) + 1, len(items) + 1 + len(later)))
        assert [record.seq for record in later] == expected, "inputs are missing"
        return items + [record.data["item"] for record in later]
    finally:
        _fate.reset(token)


class World:
    """Several clusters, one store, and all that anybody was told."""

    def __init__(self, uri: str, seed: int) -> None:
        self.uri, self.rng = uri, random.Random(seed)
        self.told: dict[tuple[str, str], Told] = {}
        self.clusters: list[Cluster] = []
        self.going: list[tuple[Fate, asyncio.Task[None]]] = []
        #: Whether owners go on with what they have in memory without asking the directory.
        self.from_memory = True
        self._inputs = 0

    def next_input(self) -> int:
        """A number that no other has."""
        self._inputs += 1
        return self._inputs

    def cluster(self) -> Cluster:
        """One more; their names do not sort by age."""
        name = f"{self.rng.choice('abcdefgh')}{len(self.clusters)}"
        self.clusters.append(Cluster(self, name))
        return self.clusters[-1]

    async def call(self, work: Coroutine[Any, Any, None], fate: Fate) -> None:
        """Begin it, and go on when it has ended or is stalled."""

        async def refusable() -> None:
            _fate.set(fate)
            try:
                await work
            except REFUSALS:
                pass
            finally:
                fate.at = 0
                fate.go.set()

        task = asyncio.create_task(refusable())
        self.going.append((fate, task))
        for _ in range(30):
            if task.done() or fate.stalled.is_set():
                break
            await asyncio.sleep(0.0005)
        if task.done():
            await task

    async def wake_all(self) -> None:
        """Whatever was stalled goes on, and ends."""
        for fate, _ in self.rng.sample(self.going, len(self.going)):
            fate.go.set()
            await asyncio.sleep(0.0005)
        async with asyncio.timeout(3):
            await asyncio.gather(*(task for _, task in self.going))
        self.going.clear()

    async def check(self, last: Cluster) -> None:
        """The cluster that holds the store has all that anybody was told, and nothing else."""
        directory = last._up()
        there = {each.session: each for each in await directory.manifests()}
        for (session, token), told in self.told.items():
            manifest = there.get(session)
            here = manifest is not None and manifest.options["token"] == token
            assert manifest is None or manifest.life != told.closed, f"{session} came back"
            if told.opened and not told.close_asked:
                assert here, f"{session} was opened and is gone"
            if here and not told.close_asked:
                items = found(last.store, await directory.locate(session))
                count = len(told.inputs)
                assert items[:count] == told.inputs, f"{session}: {told.inputs} became {items}"
                assert len(set(items)) == len(items)
                assert set(items) <= told.asked
