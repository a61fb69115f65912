"""One session follows one source: pictures are pulled in a thread and given as they come."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from actors.pictures import PictureMaker
from serve.calls import Sessions
from serve.live.items import Frame, Receipt, SessionError
from serve.sources.addresses import SourceError, SourceSettings
from serve.sources.clock import Grid, SourceClock
from serve.sources.opening import Opened, open_source
from serve.sources.records import State, StreamRecord

#: How a stream ended, and why if that was not wished for.
Outcome = tuple[State, str | None]

#: Frames that may wait to be given; they wait only while the session cannot be reached.
_MOST_PENDING = 64
_GIVE_AGAIN_S = 0.5
#: After so long without the session, the service around it is taken to be gone.
_SESSION_AWAY_S = 600.0
_KEEP_EVERY_S = 2.0
_GONE = ("session_closed", "session_not_found")


class Follower:
    """Pulls ``url`` into the session of ``record`` until it ends or is stopped.

    The source never waits for the model: what the session drops is counted, and while the session
    cannot be reached the latest frames wait and older ones are dropped.

    Frames go in without a number of their own, so that questions may be asked in between, and are
    told apart by their times: one that is given a second time, because an answer was lost, is not
    after the last and the session drops it.

    Args:
        url: with credentials.
        keep: makes a record durable; called in a thread.
    """

    def __init__(
        self,
        url: str,
        record: StreamRecord,
        sessions: Sessions,
        settings: SourceSettings,
        keep: Callable[[StreamRecord], None],
    ) -> None:
        self.record = record
        self._url, self._sessions, self._settings, self._keep = url, sessions, settings, keep
        self._loop = asyncio.get_running_loop()
        self._pending: deque[Frame] = deque()
        self._arrived = asyncio.Event()
        self._stop = asyncio.Event()
        self._stopped: Outcome = ("ended", None)
        self._stopping = threading.Event()
        self._opened: Opened | None = None
        self._no_more = False
        self._kept_at = 0.0
        self._keeping = asyncio.Lock()
        self._grid = Grid(record.fps, record.last_s)
        # The wall's clock says how long the stream has gone on, this process's how time passes:
        # the former may be set. Never back before a frame that was given.
        so_far_s = max(time.time() - record.began_at, record.last_s or 0.0)
        self._zero = time.monotonic() - so_far_s
        self._shown_s = record.last_s or 0.0

    async def run(self) -> StreamRecord:
        """Follow to the end; the last record says how it came."""
        giver = asyncio.create_task(self._give_all(), name="giver")
        puller = asyncio.create_task(self._pull_all(), name="puller")
        stop = asyncio.create_task(self._stop.wait(), name="stop")
        try:
            await asyncio.wait((giver, puller, stop), return_when=asyncio.FIRST_COMPLETED)
            if puller.done() and not stop.done():
                self._no_more = True  # after what was pulled last
                self._arrived.set()
                await asyncio.wait((giver, stop), return_when=asyncio.FIRST_COMPLETED)
            state, error = self._outcome(giver, puller)
        finally:
            self._release()
            for task in (giver, puller, stop):
                task.cancel()
            await asyncio.gather(giver, puller, stop, return_exceptions=True)
        # Not before: a source that breaks off meanwhile would have the last word.
        await self._note(state=state, error=error, ended_at=time.time())
        return self.record

    def _outcome(
        self, giver: asyncio.Task[Outcome | None], puller: asyncio.Task[Outcome]
    ) -> Outcome:
        if self._stop.is_set():
            return self._stopped  # what broke off then, we cut
        if giver.done() and (outcome := giver.result()) is not None:
            return outcome
        return puller.result()

    def stop(self, error: str | None = None) -> None:
        """End it soon, whatever the source does; its session stays.

        Args:
            error: why it then has failed, one line; None where its end was wished for.
        """
        if error is not None and not self._stop.is_set():
            self._stopped = "failed", error
        self._stopping.set()
        self._stop.set()
        self._release()

    def _release(self) -> None:
        self._stopping.set()
        if self._opened is not None:
            self._opened.close()

    async def _note(self, **changed: Any) -> None:
        """Change the record; what it says of the state is durable at once, counts soon."""
        told = {name for name in ("state", "error") if name in changed}
        different = any(changed[name] != getattr(self.record, name) for name in told)
        self.record = replace(self.record, **changed)
        if different or time.monotonic() - self._kept_at > _KEEP_EVERY_S:
            self._kept_at = time.monotonic()
            # Whoever is cancelled here leaves a thread that writes: the next one waits for it.
            await asyncio.shield(asyncio.create_task(self._keep_it()))

    async def _keep_it(self) -> None:
        async with self._keeping:  # never an older one over a newer one
            with suppress(Exception):  # told again with the next change
                await asyncio.to_thread(self._keep, self.record)

    async def _pull_all(self) -> Outcome:
        pause_s = self._settings.first_pause_s
        while True:
            await self._note(connections=self.record.connections + 1)
            before = self.record.frames + self.record.dropped
            try:
                paced = await _in_thread(self._pull_once)
            except SourceError as failure:
                error, paced = failure.message, False
                if failure.final or not self.record.reconnect:
                    return "failed", error
            else:
                error = "the source ended"
                if paced or not self.record.reconnect:
                    return "ended", None
            await self._note(state="reconnecting", error=error)
            if self.record.frames + self.record.dropped > before:
                pause_s = self._settings.first_pause_s
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, self._settings.longest_pause_s)
            # While nothing is given nobody else would notice that it is gone.
            try:
                if (await self._sessions.view(self.record.session)).state == "closed":
                    return "ended", "its session was closed"
            except SessionError as failure:
                if failure.code in _GONE:
                    return "ended", "its session was closed"

    def _pull_once(self) -> bool:
        """Runs in a thread, from one opening to the end; whether it was a recording's end."""
        opened = open_source(self._url, self._settings)
        self._opened = opened
        try:
            if not self._stopping.is_set():
                self._sample(opened)
        finally:
            opened.close()
            self._opened = None
            with suppress(Exception):
                opened.container.close()
        return opened.paced

    def _sample(self, opened: Opened) -> None:
        side = self.record.side
        maker = PictureMaker((side, side), 0, opened.stream.sample_aspect_ratio)
        clock = SourceClock(self._shown_s)
        if opened.paced and self._shown_s:
            opened.seek(self._shown_s)
        for picture, stamp_s in opened.pictures():
            if self._stopping.is_set():
                return
            now_s = self._now_s()
            shown_s = stamp_s if opened.paced else clock.shown_at(stamp_s, now_s)
            if shown_s is None:
                continue
            self._shown_s = max(shown_s, self._shown_s)
            time_s = self._grid.take(shown_s)
            if time_s is None:
                continue
            if opened.paced and self._stopping.wait(max(0.0, shown_s - self._now_s())):
                return
            frame = Frame(maker.model_input(picture), time_s)
            self._loop.call_soon_threadsafe(self._take, frame)

    def _now_s(self) -> float:
        return time.monotonic() - self._zero

    def _take(self, frame: Frame) -> None:
        if len(self._pending) == _MOST_PENDING:
            self._pending.popleft()
            self.record = replace(self.record, dropped=self.record.dropped + 1)
        self._pending.append(frame)
        self._arrived.set()

    async def _give_all(self) -> Outcome | None:
        """Until the source is over; how the stream ends where the session is the cause."""
        away_since: float | None = None
        while not self._no_more or self._pending:
            await self._arrived.wait()
            self._arrived.clear()
            while self._pending:
                batch = tuple(self._pending)
                try:
                    receipts = await self._sessions.give(self.record.session, batch)
                except SessionError as failure:
                    if failure.code in _GONE:
                        return "ended", "its session was closed"
                    if failure.code not in ("overloaded", "unavailable"):
                        return "failed", f"its session refuses frames: {failure.message}"
                    away_since = away_since or time.monotonic()
                    if time.monotonic() - away_since > _SESSION_AWAY_S:
                        return "failed", f"its session cannot be reached: {failure.message}"
                    await asyncio.sleep(_GIVE_AGAIN_S)
                    continue
                away_since = None
                await self._given(batch, receipts)
        return None

    async def _given(self, batch: Sequence[Frame], receipts: Sequence[Receipt]) -> None:
        for frame in batch:
            # The oldest may have made room meanwhile for newer ones.
            if self._pending and self._pending[0] is frame:
                self._pending.popleft()
        accepted = sum(receipt.outcome == "accepted" for receipt in receipts)
        # What is given late, after the source broke off, does not make it run.
        runs: dict[str, Any] = {"state": "running", "error": None} if self._opened else {}
        await self._note(
            **runs,
            deaths=0,
            frames=self.record.frames + accepted,
            dropped=self.record.dropped + len(receipts) - accepted,
            seq=max(receipt.seq for receipt in receipts),
            last_s=batch[-1].time_s,
        )


async def _in_thread(work: Callable[[], bool]) -> bool:
    """``work`` in a daemon thread: one that is stuck in a library must not hold up the end."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[bool] = loop.create_future()

    def settle(result: bool | None, failure: BaseException | None) -> None:
        if done.done():
            return
        if failure is not None:
            done.set_exception(failure)
        else:
            done.set_result(bool(result))

    def run() -> None:
        try:
            result, failure = work(), None
        except BaseException as error:  # goes on in the loop
            result, failure = None, error
        with suppress(RuntimeError):  # the loop is over: nobody waits
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, name="source", daemon=True).start()
    return await done
