"""One run of ``longreel watch``: frames in, narrations and answers out, until the source ends."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any

from longreel.client import APIError, AsyncClient, AsyncSession
from longreel.client.types import Stream
from longreel.errors import LongreelError
from longreel.watch_frames import shots_of
from longreel.watch_view import WatchView

#: Shots that are decoded ahead.
_AHEAD = 16
#: As fast as the service goes: shots in one push, and frames that may wait to be seen.
_BATCH, _MOST_WAITING = 8, 32
#: Seconds between looks at a source that the service pulls.
_LOOK_S = 1.0
#: Seconds for closing after Ctrl-C.
_CLOSE_S = 5.0


@dataclass(frozen=True)
class Wish:
    """What to watch, and how.

    Attributes:
        pulled: the service opens the source; with ``reconnect``, again when it breaks off.
        speed: 1 is the source's own pace, 0 as fast as the service goes.
        ask: asked at the end.
        options: of the session.
        lines: typed lines are questions.
    """

    source: str
    pulled: bool
    reconnect: bool
    speed: float
    ask: str | None
    options: Mapping[str, Any]
    lines: bool


class Watch:
    """Runs once."""

    def __init__(self, client: AsyncClient, wish: Wish, view: WatchView) -> None:
        self._client = client
        self._wish = wish
        self._view = view
        #: Frames that are seen, with all that is said at them; ``_moved`` says that more are.
        self._done = 0
        self._moved = asyncio.Event()
        self._questions: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until the source has ended and everything is answered; then the session is closed.

        Raises:
            LongreelError: the source or the service failed for good.
        """
        stream = None
        if self._wish.pulled:
            options = {**self._wish.options, "memory": {"policy": self._wish.options["memory"]}}
            stream = await self._client.streams.start(
                self._wish.source, reconnect=self._wish.reconnect, **options
            )
        else:
            # Refuses what is not there before a session is opened; reads nothing yet.
            shots_of(self._wish.source, 1.0, self._view.note)
        session: AsyncSession | None = None
        tasks: list[asyncio.Task[None]] = []
        try:
            session = await self._open(stream)
            work = self._work(session, None if stream is None else stream.id)
            tasks += [asyncio.create_task(self._follow(session)), asyncio.create_task(work)]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if not tasks[1].done():
                tasks[0].result()
                raise LongreelError("the session was closed by another client")
            tasks[1].result()
        finally:
            tasks += self._questions
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            # A service that is away shall not hold up the end.
            with suppress(APIError, TimeoutError):
                async with asyncio.timeout(_CLOSE_S):
                    if stream is not None:
                        await self._client.streams.stop(stream.id)
                        session = session or await self._open(stream)
                    if session is not None:
                        await session.close()
            if session is not None:
                self._view.tally()

    async def _open(self, stream: Stream | None) -> AsyncSession:
        """A session of its own, or that of a stream."""
        if stream is None:
            return await self._client.session(**self._wish.options)
        return await self._client.session(id=stream.session)

    async def _work(self, session: AsyncSession, stream: str | None) -> None:
        typed = asyncio.create_task(self._listen(session)) if self._wish.lines else None
        try:
            if stream is None:
                await self._feed(session)
            else:
                await self._pulled(session, stream)
            await self._seen(self._view.frames)
        finally:
            if typed is not None:
                typed.cancel()
        if self._questions:
            await asyncio.gather(*self._questions)
        if self._wish.ask is not None:
            await self._answer(session, self._wish.ask)

    async def _feed(self, session: AsyncSession) -> None:
        """Push what is decoded here, at its pace."""
        fps = float(session.opened.options["fps"])
        shots, paced = shots_of(self._wish.source, fps, self._view.note)
        ready = _in_thread(shots)
        speed, began = self._wish.speed, None
        while (shot := await ready()) is not None:
            batch = [shot]
            if paced and speed:
                began = time.monotonic() if began is None else began
                await asyncio.sleep(max(0.0, began + shot.time_s / speed - time.monotonic()))
            elif paced:
                while len(batch) < _BATCH and (more := await ready()) is not None:
                    batch.append(more)
                await self._seen(self._view.frames + len(batch) - _MOST_WAITING)
            outcomes = await session.push(
                [s.picture for s in batch], [s.time_s for s in batch], wait=False
            )
            for outcome in outcomes:
                if outcome.accepted:
                    self._view.frames += 1
                else:
                    self._view.dropped[outcome.reason or "dropped"] += 1

    async def _pulled(self, session: AsyncSession, stream: str) -> None:
        """Wait until a source that the service pulls has ended."""
        away = False
        while True:
            found = await self._client.streams.get(stream)
            if found.state == "failed":
                raise LongreelError(f"the source failed: {found.error or 'no reason given'}")
            if found.state == "reconnecting" and not away:
                self._view.note(f"the source is away: {found.error or 'connecting again'}")
            away = found.state == "reconnecting"
            self._view.frames = (await session.view()).frames
            if found.state == "ended":
                return
            await asyncio.sleep(_LOOK_S)

    async def _follow(self, session: AsyncSession) -> None:
        """Print narrations as they come; note how far the model has seen."""
        async with aclosing(session.events(frames=True)) as events:
            async for event in events:
                data = event.data
                if event.type == "narration":
                    self._view.narration(data.get("time_s"), data["text"])
                elif event.type == "error":
                    self._view.note(str(data.get("message")))
                elif event.type != "frame.seen" or data.get("speaks"):
                    continue
                if "frame" in data:
                    self._done = max(self._done, int(data["frame"]) + 1)
                    self._moved.set()

    async def _seen(self, frames: int) -> None:
        """Wait until so many frames are seen."""
        while self._done < frames:
            self._moved.clear()
            await self._moved.wait()

    async def _listen(self, session: AsyncSession) -> None:
        """Take typed lines as questions, side by side with everything else."""
        lines = _in_thread(_typed_lines())
        while (line := await lines()) is not None:
            if line.strip():
                task = asyncio.create_task(self._try_to_answer(session, line.strip()))
                self._questions.add(task)
                task.add_done_callback(self._questions.discard)

    async def _try_to_answer(self, session: AsyncSession, question: str) -> None:
        try:
            await self._answer(session, question)
        except APIError as refused:
            self._view.note(f"{question}: {refused}")

    async def _answer(self, session: AsyncSession, question: str) -> None:
        answer = await session.ask(question)
        self._view.answer(question, answer.text, answer.status)


def _typed_lines() -> Iterator[str]:
    """Lines of the terminal, past Python's own buffer: its lock must be free at the end."""
    rest = b""
    while piece := os.read(sys.stdin.fileno(), 4096):
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line.decode("utf-8", "replace")


def _in_thread(items: Iterable[Any]) -> Callable[[], Any]:
    """Reads ``items`` ahead in a thread; each awaited call gives the next one, None at the end.

    The thread is a daemon: one that waits for a terminal or camera must not hold up the end.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[tuple[Any, BaseException | None]] = asyncio.Queue()
    room = threading.Semaphore(_AHEAD)

    def tell(item: Any, failure: BaseException | None = None) -> None:
        room.acquire()
        # No coroutine: one that waits when the loop ends would complain.
        loop.call_soon_threadsafe(queue.put_nowait, (item, failure))

    def read() -> None:
        # Nobody listens any more where the loop has ended.
        with suppress(RuntimeError):
            try:
                for item in items:
                    tell(item)
            except Exception as failure:
                tell(None, failure)
            else:
                tell(None)

    threading.Thread(target=read, daemon=True).start()
    ended = False

    async def following() -> Any:
        nonlocal ended
        if ended:
            return None
        item, failure = await queue.get()
        room.release()
        ended = item is None
        if failure is not None:
            raise failure
        return item

    return following
