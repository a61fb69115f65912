"""The metrics of the whole service, gathered at its gateway."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

from grpc.aio import AioRpcError
from ray.actor import ActorHandle
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from longreel import metrics
from serve.observe.instruments import GATEWAY, Sample, labelled, sample
from serve.routable import ROUTABLE

#: How long a replica or the directory has to answer; Prometheus itself waits for ten seconds.
ANSWER_S = 3.0


class GatheredMetrics:
    """The gateway's own, its replicas' and the directory's.

    Who does not answer in time is left out and said to be down; it holds up nobody.

    Args:
        about: labels of ``longreel_build_info``.
    """

    def __init__(
        self, replica: DeploymentHandle, directory: ActorHandle, about: dict[str, str]
    ) -> None:
        self._replica, self._directory, self._about = replica, directory, about
        self._gathering: asyncio.Task[list[Sample]] | None = None

    async def gather(self) -> list[Sample]:
        """See ``Metrics``; scrapes at the same time share one round of calls."""
        if self._gathering is None or self._gathering.done():
            self._gathering = asyncio.create_task(self._gather(), name="gather-metrics")
        # One scraper that leaves takes it from none of the others.
        return await asyncio.shield(self._gathering)

    async def _gather(self) -> list[Sample]:
        names = sorted(ROUTABLE.there())
        directory, *replicas = await asyncio.gather(
            self._ask_directory(), *(self._ask_replica(name) for name in names)
        )
        found = [
            *GATEWAY.samples(),
            sample(metrics.BUILD, 1, **self._about),
            sample(metrics.REPLICAS, len(names)),
            sample(metrics.DIRECTORY_UP, directory is not None),
            *(directory or ()),
        ]
        for name, told in zip(names, replicas, strict=True):
            found.append(sample(metrics.UP, told is not None, replica=name))
            found += labelled(told or (), replica=name)
        return found

    async def _ask_replica(self, name: str) -> list[Sample] | None:
        handle = self._replica.options(method_name="metrics", session_id=name, _by_reference=False)
        try:
            async with asyncio.timeout(ANSWER_S):
                # As a call of its own, and not one of the scrape's: see ``serve.pinned``.
                who, told = await contextvars.Context().run(handle.remote)
        except (TimeoutError, RayError, RayServeException, AioRpcError):
            return None
        # Where that replica has just gone, the call went to any.
        return list(told) if who == name else None

    async def _ask_directory(self) -> list[Sample] | None:
        try:
            async with asyncio.timeout(ANSWER_S):
                told: dict[str, Any] = await self._directory.figures.remote()
        except (TimeoutError, RayError):
            return None
        states = told["sessions"]
        return [
            *(sample(metrics.SESSIONS, n, state=state) for state, n in states.items()),
            sample(metrics.STORE_HELD, told["held"]),
            sample(metrics.OWNERS, told["owners"]),
            sample(metrics.MOVES, told["moves"]),
            sample(metrics.FENCES, told["fences"]),
            sample(metrics.RELIEVED, told["relieved"]),
            sample(metrics.WITHOUT_ROOM, told["without_room"]),
        ]
