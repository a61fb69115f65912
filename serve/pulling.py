"""The process that pulls one source.

Media from outside is decoded there, so that what makes a decoder crash, or a look-up that nothing
can interrupt, ends with that process and touches no other stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import ray

from actors.reported import reported
from longreel import metrics
from longreel.errors import StorageError
from serve.calls import Sessions
from serve.decoding.limits import limit_memory
from serve.directory import NAMESPACE, directory_handle
from serve.handles import replica_handle
from serve.keys.keystore import key_holds
from serve.keys.ring import FRESH_S
from serve.pinned import PinnedSessions
from serve.sources.addresses import SourceSettings
from serve.sources.following import Follower
from serve.sources.records import StreamRecord, read_record, write_record

_MOST_DEATHS = 5
#: Of one process that pulls, which holds some 200 MB itself.
_MEMORY_BYTES = 4 * 2**30
_KEEP_AGAIN_S = 2.0
_TELL_S = 2.0

#: Called where a stream is pulled, to reach the sessions from there; travels to that process.
MakeSessions = Callable[[], Sessions]


@dataclass(frozen=True)
class ServedSessions:
    """``MakeSessions`` of the running application.

    Attributes:
        directory: name of the session directory's actor.
    """

    directory: str

    def __call__(self) -> Sessions:
        """Sessions on its replicas; a loop must run."""
        return PinnedSessions(replica_handle(), directory_handle(self.directory))


class Puller:
    """Actor that follows one source, begun again where it died.

    Args:
        url: with credentials; Ray keeps it for a restart, the state store never sees it.
        stream: id; its record lies in ``store``.
    """

    def __init__(
        self,
        url: str,
        stream: str,
        store: str,
        make_sessions: MakeSessions,
        settings: SourceSettings,
    ) -> None:
        limit_memory(_MEMORY_BYTES)
        self._url, self._stream, self._store = url, stream, store
        self._make_sessions, self._settings = make_sessions, settings
        self._follower: Follower | None = None
        self._over = asyncio.Event()
        # Begun here: nobody calls an actor that Ray has started again.
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def record(self) -> dict[str, Any] | None:
        """How it stands; None while it begins."""
        return self._follower.record.as_dict() if self._follower else None

    async def stop(self) -> None:
        """End it; returns when that is kept."""
        if self._follower:
            self._follower.stop()
            await self._over.wait()

    async def _run(self) -> None:
        record = await _until_done(lambda: read_record(self._store, self._stream))
        if record is not None and not record.over:
            record = replace(record, deaths=record.deaths + 1)
            if record.deaths > _MOST_DEATHS:
                error = f"the process that pulls it died {record.deaths} times without a frame"
                record = record.failed(error)
            await _until_done(lambda: write_record(self._store, record))
        if record is not None and not record.over:
            record = await self._follow(record)
            await _until_done(lambda: write_record(self._store, record))
        self._over.set()
        # One that only ended would be started again.
        ray.kill(ray.get_runtime_context().current_actor, no_restart=True)

    async def _follow(self, record: StreamRecord) -> StreamRecord:
        follower = Follower(
            self._url,
            record,
            self._make_sessions(),
            self._settings,
            lambda kept: write_record(self._store, kept),
        )
        self._follower = follower
        beside = [asyncio.create_task(_tell(follower))]
        if record.owner is not None:
            ending = _end_with_key(follower, self._store, record.owner)
            beside.append(asyncio.create_task(ending))
        try:
            return await follower.run()
        except Exception as failure:  # whatever it is, the stream must not seem to go on
            return follower.record.failed(f"pulling it failed ({type(failure).__name__})")
        finally:
            for task in beside:
                task.cancel()


def start_puller(
    url: str, stream: str, store: str, make_sessions: MakeSessions, settings: SourceSettings
) -> None:
    """Start the actor that pulls ``stream``; see ``Puller``."""
    ray.remote(Puller).options(
        name=_actor_name(stream),
        namespace=NAMESPACE,
        lifetime="detached",  # or it would end with the gateway that began it
        max_restarts=-1,
        num_cpus=0,
    ).remote(url, stream, store, make_sessions, settings)


def find_puller(stream: str) -> Any | None:
    """The actor that pulls ``stream``, if there is one."""
    try:
        return ray.get_actor(_actor_name(stream), NAMESPACE)
    except ValueError:
        return None


def _actor_name(stream: str) -> str:
    return f"stream:{stream}"


async def _tell(follower: Follower) -> None:
    """Tell of a stream in metrics until cancelled."""
    pulled = reported(metrics.STREAMS)
    counted = {
        "frames": reported(metrics.STREAM_FRAMES),
        "dropped": reported(metrics.STREAM_DROPPED),
        "connections": reported(metrics.STREAM_CONNECTIONS),
    }
    # What a process before this one did was told by it.
    told = {name: getattr(follower.record, name) for name in counted}
    while True:
        pulled.set(1)
        for name, counter in counted.items():
            now = getattr(follower.record, name)
            if now > told[name]:  # Ray refuses 0
                counter.inc(now - told[name])
                told[name] = now
        await asyncio.sleep(_TELL_S)


async def _end_with_key(follower: Follower, store: str, owner: str) -> None:
    """End the stream once its key is revoked: nobody else sees it who could."""
    holds = True
    while holds:
        await asyncio.sleep(FRESH_S)
        with suppress(StorageError):  # nobody can tell now, as of what else the key has open
            holds = await asyncio.to_thread(key_holds, store, owner)
    follower.stop("its key was revoked")


async def _until_done(work: Callable[[], Any]) -> Any:
    """``work`` in a thread, again until the store takes it."""
    while True:
        try:
            return await asyncio.to_thread(work)
        except StorageError:
            await asyncio.sleep(_KEEP_AGAIN_S)
