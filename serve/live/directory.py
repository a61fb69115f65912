"""The session directory as an owner calls it."""

from __future__ import annotations

from typing import Protocol

from actors.directory import Reply
from actors.placement import Load
from actors.statestore import Manifest


class DirectoryCalls(Protocol):
    """The directory, as awaited calls; see ``actors.directory.Directory`` for each."""

    async def report(self, owner: str, replica: str, load: Load) -> Reply | None:
        """Say that the owner is there; None where it was declared lost."""

    async def manifest(self, session: str) -> Manifest:
        """What is known of a session."""

    async def kept(
        self, life: str, epoch: int, snapshot: str, counts: dict[str, int], *, in_memory: bool
    ) -> bool:
        """Tell of a snapshot; False where the session is no longer the caller's."""
