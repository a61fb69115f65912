"""Following a source in this process, with sessions that keep what they were given."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from serve.live.items import Frame, Input, Receipt, SessionOptions
from serve.sources.addresses import SourceSettings
from serve.sources.following import Follower
from serve.sources.records import StreamRecord
from tests.serve.live_sources import HttpSource
from tests.serve.memory_sessions import MemorySessions
from tests.videos import read_number

SETTINGS = SourceSettings(
    allow_private=True, open_s=3, read_s=1.5, first_pause_s=0.2, longest_pause_s=1
)
#: Of a picture that is encoded, sent, decoded and looked at on a busy machine.
LATE_S = 0.5


@dataclass
class Watched(MemorySessions):
    """Sessions that keep what they were given."""

    given: list[tuple[Frame, Receipt]] = field(default_factory=list)

    async def give(
        self, session: str, inputs: Sequence[Input], seq: int | None = None
    ) -> list[Receipt]:
        receipts = await super().give(session, inputs, seq)
        for each, receipt in zip(inputs, receipts, strict=True):
            assert isinstance(each, Frame)
            self.given.append((each, receipt))
        return receipts

    def times(self) -> list[float]:
        return [frame.time_s or 0.0 for frame, _ in self.given]

    def numbers(self) -> list[int]:
        return [read_number(frame.pixels) for frame, _ in self.given]


@dataclass
class Following:
    """A follower at work."""

    follower: Follower
    sessions: Watched
    kept: list[StreamRecord]
    task: asyncio.Task[StreamRecord]

    @property
    def record(self) -> StreamRecord:
        return self.follower.record

    async def until(self, reached: Callable[[], Any], within_s: float = 20.0) -> None:
        deadline = time.monotonic() + within_s
        while not reached():
            assert time.monotonic() < deadline, self.record
            await asyncio.sleep(0.02)

    async def frames(self, n: int) -> None:
        await self.until(lambda: len(self.sessions.given) >= n)

    async def stop(self) -> StreamRecord:
        self.follower.stop()
        return await asyncio.wait_for(self.task, 2)


@asynccontextmanager
async def following(
    url: str,
    *,
    fps: float = 5.0,
    reconnect: bool = False,
    sessions: Watched | None = None,
    settings: SourceSettings = SETTINGS,
    **told: Any,
) -> AsyncIterator[Following]:
    sessions = sessions or Watched(fps=fps)
    if "door" not in {view.id for view in await sessions.list()}:
        await sessions.open(SessionOptions(fps=fps), "door")
    now = time.time()
    record = StreamRecord("door", "shown", "door", fps, 64, reconnect, now, now)
    kept: list[StreamRecord] = []
    follower = Follower(url, replace(record, **told), sessions, settings, kept.append)
    task = asyncio.create_task(follower.run())
    try:
        yield Following(follower, sessions, kept, task)
    finally:
        follower.stop()
        await asyncio.wait_for(task, 5)


def assert_wall_true(found: Following, source: HttpSource) -> None:
    """Each frame's time is when its picture was shown, as far as a busy machine lets it."""
    began = found.record.began_at
    for time_s, number in zip(found.sessions.times(), found.sessions.numbers(), strict=True):
        shown_s = source.drawn_at(number) - began
        # The grid's time lies before the picture's by less than 1 / fps; transport delays it.
        assert -0.25 <= time_s - shown_s + 0.2 <= LATE_S + 0.2, (time_s, shown_s)
