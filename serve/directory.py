"""The session directory as an actor: how it is started, and how replicas call it."""

from __future__ import annotations

import hashlib
from typing import Any

import ray
from ray.actor import ActorHandle

from actors.directory import Directory
from actors.placement import Load
from actors.statestore import Manifest

_NAMESPACE = "longreel"
_DirectoryActor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Directory)


def directory_name(store: str) -> str:
    """The actor's name; one directory for each state store."""
    return f"session-directory-{hashlib.sha256(store.encode()).hexdigest()[:12]}"


def start_directory(store: str) -> str:
    """Start the directory of ``store`` if it does not run; it outlives the caller.

    Returns:
        Its name.
    """
    name = directory_name(store)
    _DirectoryActor.options(
        name=name, namespace=_NAMESPACE, lifetime="detached", get_if_exists=True
    ).remote(store)
    return name


def stop_directory(store: str) -> None:
    """End it, if there is one; the store has all that it knows."""
    try:
        handle = ray.get_actor(directory_name(store), namespace=_NAMESPACE)
    except ValueError:
        return
    ray.kill(handle)


def directory_handle(name: str) -> ActorHandle:
    """The running directory called ``name``."""
    return ray.get_actor(name, namespace=_NAMESPACE)


class ActorDirectory:
    """``serve.live.owner.DirectoryCalls`` on the actor called ``name``."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._handle: ActorHandle | None = None

    async def report(self, owner: str, replica: str, load: Load) -> bool:
        """See ``actors.directory.Directory``."""
        return bool(await self._call("report", owner, replica, load))

    async def manifest(self, session: str) -> Manifest:
        """See ``actors.directory.Directory``."""
        found: Manifest = await self._call("manifest", session)
        return found

    async def kept(
        self, session: str, epoch: int, snapshot: str, counts: dict[str, int], *, in_memory: bool
    ) -> bool:
        """See ``actors.directory.Directory``."""
        return bool(await self._call("kept", session, epoch, snapshot, counts, in_memory=in_memory))

    async def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        if self._handle is None:
            self._handle = directory_handle(self._name)
        return await getattr(self._handle, method).remote(*args, **kwargs)
