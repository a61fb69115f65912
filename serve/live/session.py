"""One live session in a replica's memory: what it is given goes to the log, then to the engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from actors.sessionlog import SessionLog
from actors.statestore import Manifest, Record
from mod.engine.engine import UnknownSessionError
from mod.engine.events import Event
from serve.engine_loop import EngineLoop, ModelError
from serve.live.admission import Admitted, Counters, receipt_of
from serve.live.engine_side import EngineSide
from serve.live.items import (
    MOST_CHARACTERS,
    Frame,
    Input,
    Kept,
    Pixels,
    Question,
    Receipt,
    SessionError,
    SessionEvent,
    SessionOptions,
)
from serve.live.measured import Measured
from serve.live.packed import packed, unpacked
from serve.live.records import Replayed, record_of, stop_record
from serve.live.transcript import Transcript

#: Calls that can be told from others when they are made again.
_TOKENS = 256
#: Frames of one piece in which a log is replayed.
_REPLAY_FRAMES = 256


class MovedError(Exception):
    """The session is leaving this replica's memory; whoever called looks it up anew."""


class LiveSession:
    """A session that this replica owns; all methods run on the event loop that made it.

    Args:
        decode: token ids to text.
        fps: of the checkpoint, where the options name none.
        side: of the pictures, in pixels.
        log: where inputs become durable; None keeps the session in memory alone.

    Attributes:
        used: when it was last given something or asked for events, on the monotonic clock.
        readers: who await its events.
        snapshot_seq, snapshot_frames: of the last snapshot.
        broken: why the engine lost it; it must be taken in anew.
    """

    def __init__(
        self,
        loop: EngineLoop,
        manifest: Manifest,
        options: SessionOptions,
        decode: Callable[[Sequence[int]], str],
        *,
        fps: float,
        side: int,
        log: SessionLog | None,
    ) -> None:
        self.id, self.epoch, self.options = manifest.session, manifest.epoch, options
        self.life = manifest.life
        self._log, self._side = log, side
        self.counters = Counters(self.id, options.fps or fps)
        self._measured = Measured(options.kind)
        self.transcript = Transcript(decode, options.max_tokens, watcher=self._measured)
        self.used = time.monotonic()
        self.readers = 0
        self._replayed_seq = 0
        self.snapshot_seq = self.snapshot_frames = 0
        self.broken: ModelError | None = None
        self._left = False
        #: By token, the first sequence number that a call was given.
        self._tokens: dict[str, int] = {}
        self._lock = asyncio.Lock()
        self._news = asyncio.Event()
        self._engine = EngineSide(
            loop,
            f"{options.kind}-{self.id}-{self.epoch}",
            options.kind,
            self._publish,
            self._break,
        )

    @property
    def leaving(self) -> bool:
        """Whether it takes nothing in any more."""
        return self._left

    def leave(self, leaving: bool = True) -> None:
        """Take nothing in any more, or again; what was taken in is dealt with."""
        self._left = leaving

    def is_of(self, manifest: Manifest) -> bool:
        """Whether this is the session, and the assignment, that ``manifest`` tells of.

        A name may have been closed and used anew, by another client.
        """
        return (self.life, self.epoch) == (manifest.life, manifest.epoch)

    # Beginning and end

    async def begin(self, snapshot: bytes | None, past: Callable[[int], Replayed]) -> None:
        """Open in the engine, from ``snapshot`` or from nothing, and take in what came after.

        Args:
            past: from the last sequence number of the snapshot to what the log has after it.

        Raises:
            SnapshotError: the snapshot is of another model.
            SessionError: the options cannot work.
        """
        state = None
        if snapshot is not None:
            head, state = unpacked(snapshot)
            self.counters = Counters.of(self.id, head["counters"])
            self.transcript.restore(head["transcript"])
            self._tokens = head["tokens"]
            self.snapshot_seq, self.snapshot_frames = self.counters.seq, self.counters.frames
        await self._engine.open(self.options, state)
        self._replay(past(self.counters.seq))

    def came_back(self, cause: str, since: float) -> None:
        """It was taken in for ``cause`` (see ``longreel.metrics.RECOVERY``), begun at ``since``."""
        self._measured.returning(cause, since)
        self._see_whether_replayed()

    async def end(self, *, told: bool) -> None:
        """Leave the engine; ``told`` says to readers that nothing more comes."""
        if told:
            self.transcript.closed()
        self._break(ModelError("the session has left this replica"))
        await self._engine.close()

    async def settled(self) -> None:
        """Wait for calls that are under way: what they give is in the log then, or nowhere."""
        async with self._lock:
            return

    # Inputs

    async def give(
        self, inputs: Sequence[Input], seq: int | None, token: str | None
    ) -> list[Receipt]:
        """Take in ``inputs``; they are durable when this returns.

        Args:
            seq: number of the first; None takes the next.
            token: without ``seq``, tells the same call made again from another.

        Raises:
            SessionError: they cannot be taken; none was.
            FencedError, MovedError: the session is no longer this replica's.
        """
        received = self.used = time.monotonic()
        for given in inputs:
            if isinstance(given, Frame):
                self._check(given.pixels)
            elif len(given.text) > MOST_CHARACTERS:
                raise SessionError(
                    "invalid_value",
                    f"a question may have {MOST_CHARACTERS} characters, not {len(given.text)}",
                )
        async with self._lock:
            self._check_here()
            if seq is None:
                seq = self._tokens.get(token or "", self.counters.seq + 1)
            decided = self.counters.admit(inputs, seq, self.transcript.waiting_frames)
            if decided.new:
                await self._append(
                    [
                        record_of(self.life, self.epoch, given, receipt, time_s, token)
                        for given, receipt, time_s in decided.new
                    ]
                )
                self._remember(token, seq)
                last = self.transcript.last
                self._take_in(decided, received)
                return [r if r.repeated else replace(r, event=last) for r in decided.receipts]
            return decided.receipts

    async def cancel(self, response: str | None) -> bool:
        """End what is being said, or withdraw the question behind ``response``."""
        self.used = time.monotonic()
        async with self._lock:
            self._check_here()
            stop = await self._engine.stop(response)
            if stop is None:
                return False
            try:
                await self._append([stop_record(self.life, self.epoch, self.counters.seq, stop)])
            except BaseException:
                # What the engine did is not what the log says: it must be taken in anew.
                self._break(ModelError("a turn's end could not be made durable"))
                raise
            if not stop.tokens:
                self.transcript.withdraw(stop.turn)
                self._notify()
            await self._engine.release()
            return True

    async def events(self, after: int, wait_s: float) -> list[SessionEvent]:
        """Events above ``after``; waits for the first."""
        self.readers += 1
        try:
            return await self._events(after, wait_s)
        finally:
            self.readers -= 1
            self.used = time.monotonic()

    async def _events(self, after: int, wait_s: float) -> list[SessionEvent]:
        deadline = time.monotonic() + wait_s
        while not (found := self.transcript.after(after)):
            if self.broken is not None:
                return []
            news = self._news
            try:
                await asyncio.wait_for(news.wait(), deadline - time.monotonic())
            except TimeoutError:
                return []
        return found

    async def kept(self, frame: int) -> Kept:
        """What the router kept of a frame.

        Raises:
            SessionError: the session does not ask for it, or the frame is not among those that
                this replica saw last.
        """
        if not self.options.kept:
            raise SessionError("invalid_value", "the session was opened without kept")
        self._check_here()
        try:
            found = await self._engine.kept(frame)
        except UnknownSessionError:
            raise MovedError from None
        if found is None:
            raise SessionError(
                "frame_not_found",
                f"what was kept of frame {frame} is not there: it was not seen yet, or too long "
                "ago, or by a replica before this one",
            )
        return found

    # Snapshots

    async def snapshot(self, *, leaving: bool) -> tuple[bytes, dict[str, Any]] | None:
        """All of the session as bytes, and its ``counts`` then; None while busy.

        Args:
            leaving: it takes nothing in after that, and its cache is part of the bytes.
        """
        async with self._lock:
            if self.transcript.waiting or self.broken is not None:
                return None
            data = await self._engine.snapshot(with_cache=leaving)
            if data is None or self.transcript.waiting:
                return None
            head = {
                "counters": self.counters.state(),
                "transcript": self.transcript.state(),
                "tokens": self._tokens.copy(),
            }
            self._left = leaving
            counts = self.counts()
        # As long as that takes, others are served, and what this one is given comes after it.
        return await asyncio.to_thread(packed, head, data), counts

    def _remember(self, token: str | None, seq: int) -> None:
        if token is not None:
            self._tokens.setdefault(token, seq)
            if len(self._tokens) > _TOKENS:
                del self._tokens[next(iter(self._tokens))]

    def counts(self) -> dict[str, Any]:
        """For those who look at the session from outside."""
        return {
            "seq": self.counters.seq,
            "frames": self.counters.frames,
            "waiting_frames": self.transcript.waiting_frames,
            "events": self.transcript.last,
            "replaying": self.transcript.waits_for(self._replayed_seq),
        }

    def _check_here(self) -> None:
        if self._left or self.broken is not None:
            raise MovedError

    def _check(self, pixels: Any) -> None:
        shape, kind = getattr(pixels, "shape", None), getattr(pixels, "dtype", None)
        if shape != (self._side, self._side, 3) or kind != np.uint8:
            raise SessionError(
                "invalid_frame",
                f"a frame must be ({self._side}, {self._side}, 3) uint8, not {shape} {kind}",
            )

    async def _append(self, records: list[Record]) -> None:
        if self._log is not None:
            await asyncio.wrap_future(self._log.append(records))

    def _take_in(self, decided: Admitted, received: float) -> None:
        self.counters = decided.after
        self._measured.taken_in(decided.new)
        run: list[Pixels] = []
        for given, receipt, time_s in decided.new:
            if isinstance(given, Question):
                self._push(run)
                self._ask(given, receipt, received)
            elif receipt.outcome == "accepted":
                self.transcript.expect_frame(receipt.seq, time_s, received)
                run.append(given.pixels)
        self._push(run)

    def _push(self, run: list[Pixels]) -> None:
        self._engine.push(run)
        run.clear()

    def _ask(self, question: Question, receipt: Receipt, received: float) -> None:
        assert receipt.response is not None
        most = question.max_tokens
        self.transcript.expect_answer(receipt.seq, receipt.response, most, received)
        self._engine.ask(receipt.response, question.text, most)

    def _replay(self, past: Replayed) -> None:
        """Give the engine what the log has; nothing is decided anew."""
        ends = {stop.turn: stop.tokens for stop in past.stops}
        withdrawn = {turn for turn, tokens in ends.items() if not tokens}
        self._engine.end_again(ends)
        self._measured.replayed = self.counters.seq + len(past.inputs)
        run: list[Pixels] = []
        for dropped, given, time_s, token in past.inputs:
            self._remember(token, self.counters.seq + 1)
            outcome = self.counters.frames if dropped is None else dropped
            receipt = receipt_of(self.id, self.counters.seq + 1, outcome)
            self.counters = self.counters.with_outcome(outcome, time_s)
            if isinstance(given, Frame):
                self.transcript.expect_frame(receipt.seq, time_s, time.monotonic())
                run.append(given.pixels)
                if len(run) == _REPLAY_FRAMES:
                    self._push(run)
            elif isinstance(given, Question):
                self._push(run)
                assert receipt.response is not None
                if receipt.response in withdrawn:
                    self.transcript.expect_answer(receipt.seq, receipt.response, None, 0.0)
                    self.transcript.withdraw(receipt.response)
                else:
                    self._ask(given, receipt, time.monotonic())
        self._push(run)
        self._replayed_seq = self.counters.seq

    def _publish(self, events: list[Event]) -> None:
        self.transcript.take(events)
        self._see_whether_replayed()
        self._notify()

    def _see_whether_replayed(self) -> None:
        if not self.transcript.waits_for(self._replayed_seq):
            self._measured.returned()

    def _break(self, error: ModelError) -> None:
        self.broken = self.broken or error
        self._notify()

    def _notify(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()
