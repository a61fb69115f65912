"""Live sources pulled in this process, where a test is about clients and not about actors."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from serve.calls import Sessions
from serve.sources.addresses import SourceSettings
from serve.sources.following import Follower
from serve.sources.records import StreamRecord
from serve.streams import shown

_SETTINGS = SourceSettings(allow_private=True, first_pause_s=0.2)


@dataclass
class FollowingStreams:
    """``serve.routes.context.Streams`` without Ray: a task of the event loop for each."""

    sessions: Sessions
    side: int = 96
    fps: float = 2.0
    _followers: dict[str, Follower] = field(default_factory=dict)
    _tasks: list[asyncio.Task[StreamRecord]] = field(default_factory=list)

    async def start(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """See ``Streams``."""
        options, now = wanted["options"], time.time()
        session = await self.sessions.open(options, wanted.get("id"))
        record = StreamRecord(
            id=session.id,
            url=wanted["url"],
            session=session.id,
            fps=options.fps or self.fps,
            side=self.side,
            reconnect=wanted["reconnect"],
            created=now,
            began_at=now,
            owner=options.owner,
        )
        follower = Follower(wanted["url"], record, self.sessions, _SETTINGS, lambda _: None)
        self._followers[record.id] = follower
        self._tasks.append(asyncio.create_task(follower.run()))
        return shown(record)

    async def list(self) -> list[dict[str, Any]]:
        """See ``Streams``."""
        return [shown(follower.record) for follower in self._followers.values()]

    async def get(self, stream: str) -> dict[str, Any] | None:
        """See ``Streams``."""
        follower = self._followers.get(stream)
        return None if follower is None else shown(follower.record)

    async def stop(self, stream: str) -> dict[str, Any] | None:
        """See ``Streams``."""
        follower = self._followers.get(stream)
        if follower is None:
            return None
        follower.stop()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        return shown(follower.record)
