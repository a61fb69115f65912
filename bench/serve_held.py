"""A replica that keeps sessions in its memory alone, as replicas behind a hash ring do."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from serve.engine_loop import LoopStream
from serve.live.calls import replica_name
from serve.replica import Replica


class HeldReplica(Replica):
    """``Replica`` with sessions that live as long as it does, and as long as calls find it."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._held: dict[str, LoopStream] = {}
        self._known: dict[str, int] = {}

    async def see(self, session: str, frames: NDArray[np.uint8]) -> tuple[str, int, float]:
        """Take in the next frames (n, height, width, 3) of a session, a new one if it is unknown.

        Returns:
            Who did, how many frames of the session it has now, and how much the last one was
            worth a word (0-1).
        """
        if session not in self._held:
            self._held[session] = await self._engine.open(instruction=None, kind="live")
        outcomes = await self._held[session].watch(torch.from_numpy(frames))
        self._known[session] = self._known.get(session, 0) + len(outcomes)
        return replica_name(), self._known[session], 1.0 - outcomes[-1].p_silence

    async def end(self, session: str) -> None:
        """Forget it."""
        self._known.pop(session, None)
        if stream := self._held.pop(session, None):
            await stream.close()
