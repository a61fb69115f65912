"""Where ``/metrics`` takes its samples from, and the least there is: those of one process."""

from __future__ import annotations

from typing import Protocol

from serve.observe.instruments import GATEWAY, Sample


class Metrics(Protocol):
    """Where the route takes samples from."""

    async def gather(self) -> list[Sample]:
        """All samples, as of now."""


class OwnMetrics:
    """Those of this process alone."""

    async def gather(self) -> list[Sample]:
        """See ``Metrics``."""
        return GATEWAY.samples()
