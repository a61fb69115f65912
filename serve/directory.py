"""The session directory as an actor: how it is started, and how replicas call it."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayError
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE

from actors.claim import StoreClaim
from actors.directory import Directory, DirectoryError, Reply
from actors.placement import Load
from actors.statestore import Manifest
from serve.live.items import SessionError

#: Of our actors that outlive the process that started them.
NAMESPACE = "longreel"
#: How long the store may take to be given up, in seconds; after that it is found to be free later.
_RELEASE_S = 10.0
#: Between two looks whether Ray Serve runs, in seconds.
_SERVES_S = 2.0


def _cluster() -> str:
    """The connected cluster's name, which the next head keeps where the control store does."""
    name: str = ray.get_runtime_context().get_session_name()
    return name


def _serves() -> bool:
    """Whether Ray Serve runs in the cluster."""
    try:
        ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
    except ValueError:
        return False
    except Exception:  # the head is away: nobody can say
        return True
    return True


class ServedDirectory(Directory):
    """The directory of a Ray cluster, which holds the state store while Ray Serve runs there.

    Args:
        store: uri of the state store.
    """

    def __init__(self, store: str) -> None:
        # This process may die alone; its node's own lives while the node does.
        super().__init__(store, _cluster(), os.getppid())
        self._serving = True
        # Begun here: nobody may call an actor that Ray has started again.
        self._tasks = [
            asyncio.get_running_loop().create_task(work)
            for work in (self.tend(lambda: self._serving), self._look_for_serve())
        ]

    async def _look_for_serve(self) -> None:
        # Beside the claim, which is renewed while the cluster's head is away and nobody answers.
        while True:
            self._serving = await asyncio.to_thread(_serves)
            await asyncio.sleep(_SERVES_S)


_DirectoryActor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(ServedDirectory)


def claim_store(store: str) -> None:
    """Claim the state store for the connected cluster, before anything is started on it.

    Raises:
        LongreelError: another cluster serves from it.
        StorageError: it cannot be read or written.
    """
    StoreClaim(store, _cluster()).take()


@contextmanager
def leaving(store: str) -> Iterator[None]:
    """The state store is left to other clusters at the end."""
    try:
        yield
    finally:
        stop_directory(store)


def directory_name(store: str) -> str:
    """The actor's name; one directory for each state store."""
    return f"session-directory-{hashlib.sha256(store.encode()).hexdigest()[:12]}"


def start_directory(store: str) -> str:
    """Start the directory of ``store`` if it does not run; it outlives the caller.

    Replicas and gateways do, for themselves: whoever deploys may be a task on any node, or none
    at all, as when Ray Serve's controller brings an application back.

    Returns:
        Its name.
    """
    name = directory_name(store)
    _DirectoryActor.options(
        name=name, namespace=NAMESPACE, lifetime="detached", get_if_exists=True
    ).remote(store)
    return name


def stop_directory(store: str) -> None:
    """End it, if there is one, and leave the store to others; the store has all that it knows."""
    try:
        handle = ray.get_actor(directory_name(store), namespace=NAMESPACE)
    except ValueError:
        return
    with suppress(RayError):
        ray.get(handle.release.remote(), timeout=_RELEASE_S)
    ray.kill(handle)


def directory_handle(name: str) -> ActorHandle:
    """The running directory called ``name``."""
    return ray.get_actor(name, namespace=NAMESPACE)


class ActorDirectory:
    """``serve.live.directory.DirectoryCalls`` on the actor called ``name``."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._handle: ActorHandle | None = None

    async def report(self, owner: str, replica: str, load: Load) -> Reply | None:
        """See ``actors.directory.Directory``."""
        reply: Reply | None = await self._call("report", owner, replica, load)
        return reply

    async def manifest(self, session: str) -> Manifest:
        """See ``actors.directory.Directory``."""
        found: Manifest = await self._call("manifest", session)
        return found

    async def kept(
        self, life: str, epoch: int, snapshot: str, counts: dict[str, int], *, in_memory: bool
    ) -> bool:
        """See ``actors.directory.Directory``."""
        return bool(await self._call("kept", life, epoch, snapshot, counts, in_memory=in_memory))

    async def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        if self._handle is None:
            self._handle = directory_handle(self._name)
        return await getattr(self._handle, method).remote(*args, **kwargs)


class DirectoryCluster:
    """``serve.routes.context.Cluster``, as the directory called ``name`` knows it."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def state(self) -> dict[str, Any]:
        """See ``Cluster``.

        Raises:
            SessionError: the directory is away, or the state store another cluster's.
        """
        try:
            handle = directory_handle(self._name)
            owners = await handle.owners.remote()
            manifests = await handle.manifests.remote()
        except (ValueError, RayActorError):
            raise SessionError("unavailable", "the session directory is away") from None
        except DirectoryError as error:
            raise SessionError(error.code, error.message) from None
        return {
            "replicas": [
                {
                    "replica": replica,
                    "sessions": load.sessions,
                    "cache_bytes": load.capacity_bytes - load.free_bytes,
                    "cache_capacity_bytes": load.capacity_bytes,
                    "waiting_frames": load.waiting_frames,
                    "waiting_questions": load.waiting_questions,
                    "lag_s": load.lag_s,
                    "reported_s": age,
                }
                for replica, load, age in sorted(owners.values(), key=lambda told: told[0])
            ],
            "sessions": len(manifests),
            "idle_sessions": sum(manifest.owner is None for manifest in manifests),
        }
