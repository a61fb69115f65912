"""The calls on sessions that a replica answers; each is bounded, so that a drain is too."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from ray import serve
from ray.serve.exceptions import RayServeException

from actors.statestore import Manifest
from serve.live.items import Input, Kept, Receipt, Refusal, SessionEvent
from serve.live.owner import Owner
from serve.observe import logs
from serve.observe.ids import carrying
from serve.observe.instruments import Sample


def replica_name() -> str:
    """By which name calls are routed to this process; ``alone`` outside of Ray Serve."""
    try:
        name: str = serve.get_replica_context().replica_id.unique_id
    except RayServeException:
        return "alone"
    return name


class SessionCalls:
    """What ``serve.pinned`` calls on a replica; see ``serve.live.owner.Owner`` for each."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._looking_after: asyncio.Task[None] | None = None

    async def reconfigure(self, _: object) -> None:
        """Look after sessions from now on; Ray Serve calls this once the event loop runs."""
        logs.install()
        self._looking_after = self._looking_after or asyncio.create_task(self._owner.run())

    @carrying
    async def session_give(
        self, manifest: Manifest, inputs: Sequence[Input], seq: int | None, token: str | None
    ) -> list[Receipt] | Refusal:
        """See ``serve.live.owner.Owner``, as for the calls below."""
        return await self._owner.give(manifest, inputs, seq, token)

    @carrying
    async def session_cancel(self, manifest: Manifest, response: str | None) -> bool | Refusal:
        """See ``serve.live.owner.Owner``."""
        return await self._owner.cancel(manifest, response)

    @carrying
    async def session_events(
        self, manifest: Manifest, after: int, wait_s: float
    ) -> list[SessionEvent] | Refusal:
        """See ``serve.live.owner.Owner``."""
        return await self._owner.events(manifest, after, wait_s)

    @carrying
    async def session_kept(self, manifest: Manifest, frame: int) -> Kept | Refusal:
        """See ``serve.live.owner.Owner``."""
        return await self._owner.kept(manifest, frame)

    @carrying
    async def session_counts(self, manifest: Manifest) -> dict[str, Any] | Refusal:
        """See ``serve.live.owner.Owner``."""
        return await self._owner.counts(manifest)

    @carrying
    async def session_drop(self, life: str) -> dict[str, Any] | None:
        """See ``serve.live.owner.Owner``."""
        return await self._owner.drop(life)

    async def metrics(self) -> tuple[str, list[Sample]]:
        """The replica's name, and what it tells of itself."""
        return replica_name(), self._owner.samples()

    @carrying
    async def session_owner(self) -> tuple[str, str]:
        """Names of the owner that this replica is, and of the replica."""
        return self._owner.name, replica_name()
