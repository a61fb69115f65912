"""Bulk work and live sessions on one engine: bulk takes what is free, live goes first."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from mod.engine.engine import Engine
from mod.engine.events import Event, FrameSeen
from serve.engine_loop import EngineLoop, ModelError
from tests.mod.small import some_frames
from tests.serve.live.owners import make_engine

FRAMES = some_frames(24, seed=1)


class Ear:
    """Notes at which step of the engine each frame was decided; runs in the engine's thread."""

    live, aside, model_s = True, False, 0.0

    def __init__(self) -> None:
        self.given: list[int] = []
        self.seen: list[int] = []

    def give(self, engine: Engine) -> None:
        """One more frame, when nothing of the session waits."""
        if not engine.waits("live"):
            self.given.append(engine.steps)
            number = len(self.given) % len(FRAMES)
            engine.push("live", FRAMES[number : number + 1])

    def take(self, events: Sequence[Event], engine: Engine) -> None:
        self.seen += [engine.steps for event in events if isinstance(event, FrameSeen)]
        if engine.speaking("live") is not None:
            engine.stop("live")

    def fail(self, error: ModelError) -> None:
        raise error


@pytest.mark.slow
def test_a_live_frame_waits_for_no_more_than_the_step_that_runs() -> None:
    """Guards live sessions on a replica full of bulk work: what arrives amid a step is in the next
    one, while the bulk work, alone, runs in large chunks."""

    async def work() -> None:
        engine = make_engine()
        loop = EngineLoop(engine)
        ear = Ear()
        await loop.attach("live", ear, lambda e: e.open("live", max_new_tokens=3))
        streams = [
            await loop.open(instruction=None, kind="bulk", threshold=0.0, max_new_tokens=3)
            for _ in range(2)
        ]
        jobs = [asyncio.create_task(stream.watch(FRAMES.repeat(2, 1, 1, 1))) for stream in streams]
        # Not without pause: live work that never rests leaves no step to bulk work.
        while not all(job.done() for job in jobs) and len(ear.given) < 15:
            await loop.use(ear.give)
            await asyncio.sleep(0.01)
        for job in jobs:
            assert len(await job) == 2 * len(FRAMES)
        for stream in streams:
            await stream.close()
        assert len(ear.seen) == len(ear.given) > 3
        assert [seen - given for given, seen in zip(ear.given, ear.seen, strict=True)] == [1] * len(
            ear.seen
        )

    asyncio.run(work())
