"""One live session in a replica's memory: what it is given goes to the log, then to the engine."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from actors.sessionlog import SessionLog
from actors.statestore import Manifest, Record
from mod.engine.engine import ContextError, Engine
from mod.engine.events import Event, Word
from mod.engine.policy import Full, Policy, Retrieve, Window
from serve.engine_loop import EngineLoop, ModelError
from serve.live.admission import Admitted, Counters, receipt_of
from serve.live.items import (
    Frame,
    Input,
    Question,
    Receipt,
    SessionError,
    SessionEvent,
    SessionOptions,
)
from serve.live.records import Replayed, Stop, record_of, stop_record, turn_name
from serve.live.transcript import Transcript

#: Of a question: it is read in one step of the engine, for which everybody waits.
MOST_CHARACTERS = 4096
#: Calls that can be told from others when they are made again.
_TOKENS = 256
#: Frames of one piece in which a log is replayed.
_REPLAY_FRAMES = 256


def policy_of(options: SessionOptions) -> Policy:
    """What a session remembers.

    Raises:
        SessionError: the numbers cannot work.
    """
    try:
        if options.memory == "full":
            return Full()
        kind = Window if options.memory == "window" else Retrieve
        return kind(frames=options.memory_frames)
    except ValueError as failure:
        raise SessionError("invalid_value", f"memory: {failure}") from None


@dataclass
class EngineSide:
    """A session's ear in the engine's thread.

    Turns end where they were ended before: ``ends`` says after how many tokens. A turn that is
    ended now is told of only when that is durable.
    """

    name: str
    publish: Callable[[list[Event]], None]
    lost: Callable[[ModelError], None]
    ends: dict[str, int] = field(default_factory=dict)
    model_s: float = 0.0
    _tokens: int = 0
    _turn: str = ""
    _held: list[Event] | None = None

    def take(self, events: Sequence[Event], engine: Engine) -> None:
        """Count words, end turns, pass events on."""
        for event in events:
            if isinstance(event, Word):
                turn = turn_name(event.frame, event.question)
                self._tokens = self._tokens + 1 if turn == self._turn else 1
                self._turn = turn
                if self.ends.get(turn) == self._tokens:
                    engine.stop(self.name)
        if self._held is not None:
            self._held += events
        else:
            self.publish(list(events))

    def fail(self, error: ModelError) -> None:
        """The engine lost the session."""
        self.lost(error)

    def stop(self, engine: Engine, response: str | None) -> Stop | None:
        """End what is being said, or withdraw ``response``; hold back what follows."""
        said = engine.speaking(self.name)
        if said is not None and response in (None, said.question):
            engine.stop(self.name)
            self._held = []
            return Stop(turn_name(said.frame, said.question), len(said.said))
        if response is not None and engine.withdraw(self.name, response):
            self._held = []
            return Stop(response, 0)
        return None

    def release(self) -> None:
        """Pass on what was held back."""
        held, self._held = self._held, None
        if held:
            self.publish(held)


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
        self._loop, self._log, self._side = loop, log, side
        self.counters = Counters(self.id, options.fps or fps)
        self.transcript = Transcript(decode, options.max_tokens)
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
        self._home = asyncio.get_running_loop()
        self._name = f"{options.kind}-{self.id}-{self.epoch}"
        self._ear = EngineSide(
            self._name,
            lambda events: self._call_home(self._publish, events),
            lambda error: self._call_home(self._break, error),
        )

    @property
    def leaving(self) -> bool:
        """Whether it takes nothing in any more."""
        return self._left

    # Beginning and end

    async def begin(self, snapshot: bytes | None, past: Callable[[int], Replayed]) -> None:
        """Open in the engine, from ``snapshot`` or from nothing, and take in what came after.

        Args:
            past: from the last sequence number of the snapshot to what the log has after it.

        Raises:
            SnapshotError: the snapshot is of another model.
            SessionError: the options cannot work.
        """
        options = self.options
        policy = policy_of(options)
        if snapshot is None:

            def opening(engine: Engine) -> None:
                engine.open(
                    self._name,
                    instruction=options.instruction,
                    threshold=options.silence_threshold,
                    max_new_tokens=options.max_tokens,
                    kind=options.kind,
                    policy=policy,
                    asked=options.asked,
                    frames=options.frames,
                    fps=options.fps,
                )
        else:
            size = int.from_bytes(snapshot[:4], "little")
            state = json.loads(snapshot[4 : 4 + size])
            self.counters = Counters.of(self.id, state["counters"])
            self.transcript.restore(state["transcript"])
            self._tokens = state["tokens"]
            self.snapshot_seq, self.snapshot_frames = self.counters.seq, self.counters.frames

            def opening(engine: Engine) -> None:
                engine.restore(self._name, snapshot[4 + size :])

        try:
            await self._loop.attach(self._name, self._ear, opening)
        except ContextError as failure:
            raise SessionError("context_length_exceeded", str(failure)) from None
        self._replay(past(self.counters.seq))

    async def end(self, *, told: bool) -> None:
        """Leave the engine; ``told`` says to readers that nothing more comes."""
        if told:
            self.transcript.closed()
        self._break(ModelError("the session has left this replica"))
        await self._loop.close(self._name)

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
        self.used = time.monotonic()
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
                        record_of(self.id, self.epoch, given, receipt, time_s, token)
                        for given, receipt, time_s in decided.new
                    ]
                )
                self._remember(token, seq)
                self._take_in(decided)
            return decided.receipts

    async def cancel(self, response: str | None) -> bool:
        """End what is being said, or withdraw the question behind ``response``."""
        self.used = time.monotonic()
        async with self._lock:
            self._check_here()
            stop = await self._loop.use(lambda engine: self._ear.stop(engine, response))
            if stop is None:
                return False
            try:
                await self._append([stop_record(self.id, self.epoch, self.counters.seq, stop)])
            except BaseException:
                # What the engine did is not what the log says: it must be taken in anew.
                self._break(ModelError("a turn's end could not be made durable"))
                raise
            if not stop.tokens:
                self.transcript.withdraw(stop.turn)
                self._notify()
            await self._loop.use(lambda _: self._ear.release())
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

    # Snapshots

    async def snapshot(self, *, leaving: bool) -> tuple[bytes, int] | None:
        """All of the session as bytes, and the sequence number they reach to; None while busy.

        Args:
            leaving: it takes nothing in after that, and its cache is part of the bytes.
        """
        async with self._lock:
            if self.transcript.waiting or self.broken is not None:
                return None
            data = await self._loop.use(
                lambda engine: (
                    None
                    if engine.waits(self._name)
                    else engine.snapshot(self._name, with_cache=leaving)
                )
            )
            if data is None or self.transcript.waiting:
                return None
            state = {
                "counters": self.counters.state(),
                "transcript": self.transcript.state(),
                "tokens": self._tokens,
            }
            head = json.dumps(state).encode()
            self._left = leaving
            return len(head).to_bytes(4, "little") + head + data, self.counters.seq

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

    def _take_in(self, decided: Admitted) -> None:
        self.counters = decided.after
        run: list[Tensor] = []
        for given, receipt, time_s in decided.new:
            if isinstance(given, Question):
                self._push(run)
                self._ask(given, receipt)
            elif receipt.outcome == "accepted":
                self.transcript.expect_frame(receipt.seq, time_s, time.monotonic())
                run.append(torch.from_numpy(np.array(given.pixels)))
        self._push(run)

    def _push(self, run: list[Tensor]) -> None:
        if run:
            frames = torch.stack(run)
            run.clear()
            self._loop.post(lambda engine: engine.push(self._name, frames))

    def _ask(self, question: Question, receipt: Receipt) -> None:
        assert receipt.response is not None
        response, text = receipt.response, question.text
        self.transcript.expect_answer(receipt.seq, response, question.max_tokens, time.monotonic())

        def ask(engine: Engine) -> None:
            if question.max_tokens is not None:
                self._ear.ends.setdefault(response, question.max_tokens)
            engine.ask(self._name, response, text)

        self._loop.post(ask)

    def _replay(self, past: Replayed) -> None:
        """Give the engine what the log has; nothing is decided anew."""
        ends = {stop.turn: stop.tokens for stop in past.stops}
        withdrawn = {turn for turn, tokens in ends.items() if not tokens}
        self._loop.post(lambda _: self._ear.ends.update(ends))
        run: list[Tensor] = []
        for dropped, given, time_s, token in past.inputs:
            self._remember(token, self.counters.seq + 1)
            outcome = self.counters.frames if dropped is None else dropped
            receipt = receipt_of(self.id, self.counters.seq + 1, outcome)
            self.counters = self.counters.with_outcome(outcome, time_s)
            if isinstance(given, Frame):
                self.transcript.expect_frame(receipt.seq, time_s, time.monotonic())
                run.append(torch.from_numpy(np.array(given.pixels)))
                if len(run) == _REPLAY_FRAMES:
                    self._push(run)
            elif isinstance(given, Question):
                self._push(run)
                assert receipt.response is not None
                if receipt.response in withdrawn:
                    self.transcript.expect_answer(receipt.seq, receipt.response, None, 0.0)
                    self.transcript.withdraw(receipt.response)
                else:
                    self._ask(given, receipt)
        self._push(run)
        self._replayed_seq = self.counters.seq

    def _publish(self, events: list[Event]) -> None:
        self.transcript.take(events)
        self._notify()

    def _break(self, error: ModelError) -> None:
        self.broken = self.broken or error
        self._notify()

    def _notify(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _call_home(self, what: Callable[[Any], None], value: Any) -> None:
        try:
            self._home.call_soon_threadsafe(what, value)
        except RuntimeError:
            # The event loop has ended, and with it everybody who would hear of it.
            return
