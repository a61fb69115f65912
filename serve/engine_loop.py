"""The engine's own thread in a replica, and streams on it for calls that await."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Literal, Protocol, TypeVar

from torch import Tensor

from mod.engine.engine import Engine
from mod.engine.events import Collector, Event, FrameOutcome, FrameSeen, TurnEnded, Word
from mod.engine.policy import Policy
from serve.live.pace import StepTimes
from serve.observe.replica import STEP_FAILURES, STEP_SECONDS

_Result = TypeVar("_Result")


class Sink(Protocol):
    """Who hears of a stream; called by the engine's thread, between steps.

    Attributes:
        live: whether frames come as they happen; else it is part of a bulk job.
        aside: whether it belongs to another stream's call.
        model_s: seconds of the engine's steps, this stream's part of them.
    """

    live: bool
    aside: bool
    model_s: float

    def take(self, events: Sequence[Event], engine: Engine) -> None:
        """What a step told of the stream, in order."""

    def fail(self, error: ModelError) -> None:
        """The stream is lost."""


class ModelError(RuntimeError):
    """The model could not take an input in; the stream stands where it stood before."""


class EngineLoop:
    """Steps an engine while anything waits; all else is done to it by its thread, between steps.

    Attributes:
        engine: for a look at its figures; all else is its thread's.
        times: what steps with live work cost.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = self._engine = engine
        self.times = StepTimes()
        self._actions: SimpleQueue[tuple[Callable[[Engine], Any], Future[Any]]] = SimpleQueue()
        self._streams: dict[str, Sink] = {}
        self._numbers = itertools.count(1)
        threading.Thread(target=self._run, name="engine", daemon=True).start()

    async def open(
        self,
        *,
        instruction: str | None,
        threshold: float = 0.0,
        kind: Literal["live", "bulk"],
        policy: Policy | None = None,
        max_new_tokens: int = 96,
        frames: int | None = None,
        fps: float | None = None,
    ) -> LoopStream:
        """A new stream, to be awaited on the event loop that opens it."""
        return await self._begin(
            kind,
            lambda engine, name: engine.open(
                name,
                instruction=instruction,
                threshold=threshold,
                kind=kind,
                policy=policy,
                max_new_tokens=max_new_tokens,
                frames=frames,
                fps=fps,
            ),
        )

    async def resume(self, state: bytes) -> LoopStream:
        """A stream that goes on where another stood when it gave its ``state``.

        Raises:
            SnapshotError: the bytes do not fit the model.
        """
        return await self._begin("bulk", lambda engine, name: engine.restore(name, state))

    @property
    def bulk_calls(self) -> int:
        """Calls of bulk jobs that are under way."""
        return sum(not s.live and not s.aside for s in self._streams.copy().values())

    async def fork(self, stream: LoopStream) -> LoopStream:
        """A second stream with the same past."""
        return await self._begin(
            "bulk", lambda engine, name: engine.fork(stream.name, name), aside=True
        )

    async def _begin(
        self, kind: str, opening: Callable[[Engine, str], None], *, aside: bool = False
    ) -> LoopStream:
        name = f"{kind}-{next(self._numbers)}"
        stream = LoopStream(self, name, asyncio.get_running_loop(), kind == "live", aside)
        try:
            await self.attach(name, stream, lambda engine: opening(engine, name))
        except asyncio.CancelledError:
            # It is opened all the same, and nobody else would close it.
            self.post(lambda engine: self._end(engine, name))
            raise
        return stream

    async def close(self, name: str) -> None:
        """End a stream and free its memory."""
        await self.use(lambda engine: self._end(engine, name))

    def _end(self, engine: Engine, name: str) -> None:
        if self._streams.pop(name, None):
            engine.close(name)

    async def attach(self, name: str, sink: Sink, opening: Callable[[Engine], _Result]) -> _Result:
        """A stream called ``name`` that ``opening`` makes; ``sink`` hears of it."""

        def begin(engine: Engine) -> _Result:
            made = opening(engine)
            self._streams[name] = sink
            return made

        return await self.use(begin)

    def post(self, action: Callable[[Engine], Any]) -> None:
        """Do something with the engine before its next step; nobody waits for it."""
        self._actions.put((action, Future()))

    async def use(self, action: Callable[[Engine], _Result]) -> _Result:
        """Do something with the engine before its next step."""
        done: Future[_Result] = Future()
        # So that nobody who leaves can cancel it: the thread would end at a result it cannot give.
        done.set_running_or_notify_cancel()
        self._actions.put((action, done))
        return await asyncio.wrap_future(done)

    def _run(self) -> None:
        while True:
            self._act(wait=not self._engine.busy)
            if self._engine.busy:
                self._step()

    def _act(self, *, wait: bool) -> None:
        """Do what was asked for; with ``wait`` at least one thing."""
        while wait or not self._actions.empty():
            action, done = self._actions.get()
            wait = False
            try:
                done.set_result(action(self._engine))
            except Exception as failure:
                done.set_exception(failure)

    def _step(self) -> None:
        started = time.perf_counter()
        try:
            events = self._engine.step()
        except Exception as failure:
            STEP_FAILURES.inc()
            # No input's fault, so everybody hears of it, and nobody waits for ever.
            for name, stream in self._streams.items():
                self._engine.close(name)
                stream.fail(ModelError(f"the engine failed: {failure}"))
            self._streams.clear()
            return
        seconds = time.perf_counter() - started
        STEP_SECONDS.observe(seconds)
        told: dict[str, list[Event]] = {}
        for event in events:
            told.setdefault(event.session, []).append(event)
        if any(s.live for name in told if (s := self._streams.get(name))):
            kinds = [type(event) for event in events]
            counts = (kinds.count(FrameSeen), kinds.count(Word), kinds.count(TurnEnded))
            self.times.stepped(time.monotonic(), seconds, *counts)
        for name, happened in told.items():
            if (sink := self._streams.get(name)) is None:
                continue
            # Sessions of one step share its time evenly.
            sink.model_s += seconds / len(told)
            sink.take(happened, self._engine)


class LoopStream:
    """One stream for one caller, who awaits each input before giving the next.

    Attributes:
        live: whether its frames come as they happen.
        aside: whether it belongs to another's call.
        model_s: seconds of the engine's steps, this stream's part of them.
    """

    def __init__(
        self,
        loop: EngineLoop,
        name: str,
        caller: asyncio.AbstractEventLoop,
        live: bool,
        aside: bool,
    ) -> None:
        self.name = name
        self.live, self.aside = live, aside
        self.model_s = 0.0
        self._loop, self._caller = loop, caller
        self._done: asyncio.Future[None] | None = None
        self._told = Collector()

    async def watch(self, frames: Tensor) -> list[FrameOutcome]:
        """See ``frames`` (n, height, width, 3) uint8; what the model made of each.

        Raises:
            ModelError: they could not be taken in.
        """
        if not len(frames):
            return []
        told = self._told = Collector(len(frames))
        await self._give(lambda engine: engine.push(self.name, frames))
        return told.outcomes

    async def ask(self, text: str) -> str:
        """The answer to ``text``.

        Raises:
            ModelError: it could not be answered.
        """
        told = self._told = Collector()
        await self._give(lambda engine: engine.ask(self.name, "question", text))
        return told.answer

    @property
    def n_words(self) -> int:
        """Tokens of the last answer."""
        return self._told.n_words

    async def held_bytes(self) -> int:
        """Bytes of keys and values that the stream holds."""
        return await self._loop.use(lambda engine: engine.held_bytes(self.name))

    async def state(self) -> bytes:
        """All that the stream remembers, for ``EngineLoop.resume`` in any replica of the model."""
        return await self._loop.use(lambda engine: engine.snapshot(self.name))

    async def close(self) -> None:
        """End the stream."""
        await self._loop.close(self.name)

    async def _give(self, action: Callable[[Engine], None]) -> None:
        self._done = self._caller.create_future()
        await self._loop.use(action)
        await self._done

    def fail(self, error: ModelError) -> None:
        """Whoever awaits gets ``error``; called by the engine's thread, as ``take`` is."""
        self._finish(error)

    def take(self, events: Sequence[Event], engine: Engine) -> None:
        """Note what a step told of this stream."""
        for event in events:
            if self._told.take(event):
                error = self._told.error
                self._finish(ModelError(error) if error else None)

    def _finish(self, error: Exception | None) -> None:
        done = self._done

        def settle() -> None:
            if done is not None and not done.done():
                if error is None:
                    done.set_result(None)
                else:
                    done.set_exception(error)

        # A caller whose own loop is gone awaits nothing any more.
        with suppress(RuntimeError):
            self._caller.call_soon_threadsafe(settle)
