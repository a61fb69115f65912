"""Which cluster a command is for: one that runs, or one of its own; known without loading Ray."""

from __future__ import annotations

import os

LOCAL = "local"


def target(address: str | None) -> str:
    """The address of a running cluster, or ``LOCAL``; without an address, what ``RAY_ADDRESS``
    says."""
    return address or os.environ.get("RAY_ADDRESS") or LOCAL


def starts_one(address: str | None) -> bool:
    """Whether ``pipelines.cluster.connected`` starts a cluster, which ends with it, where there is
    no connection."""
    return target(address) == LOCAL
