"""The engine's half of a live session: what it is given becomes words, cut off where they were."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from mod.engine.engine import ContextError, Engine
from mod.engine.events import Event, FrameSeen, Word
from mod.engine.policy import Full, Policy, PolicyError, Retrieve, Window
from serve.engine_loop import EngineLoop, ModelError
from serve.live.items import Kept, Pixels, SessionError, SessionOptions
from serve.live.records import Stop, turn_name

#: Frames of a session of which it can be asked what the router kept.
KEPT_FRAMES = 2048


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


class EngineSide:
    """A session in the engine; called on the event loop that made it, which hears of it there too.

    ``take`` and ``fail`` are the engine's thread's. Turns end where they were ended before. A turn
    that is ended now is told of only when that is durable.

    Args:
        name: in the engine, unlike that of any other session before or after.
        publish: told of what the model said.
        lost: told that the engine lost the session.

    Attributes:
        live, aside, model_s: see ``serve.engine_loop.Sink``.
    """

    def __init__(
        self,
        loop: EngineLoop,
        name: str,
        kind: str,
        publish: Callable[[list[Event]], None],
        lost: Callable[[ModelError], None],
    ) -> None:
        self.live, self.aside, self.model_s = kind == "live", False, 0.0
        self._loop, self._name = loop, name
        self._publish, self._lost = publish, lost
        self._home = asyncio.get_running_loop()
        #: After how many tokens turns end, by their names.
        self._ends: dict[str, int] = {}
        self._tokens = 0
        self._turn = ""
        self._held: list[Event] | None = None

    # In the engine's thread

    def take(self, events: Sequence[Event], engine: Engine) -> None:
        """Count words, end turns, pass events on."""
        for event in events:
            if isinstance(event, Word):
                turn = turn_name(event.frame, event.question)
                self._tokens = self._tokens + 1 if turn == self._turn else 1
            elif isinstance(event, FrameSeen) and event.speaks:
                # Where something is fed before the first word, it can be ended before that.
                turn, self._tokens = turn_name(event.frame, None), 0
            else:
                continue
            self._turn = turn
            if self._ends.get(turn) == self._tokens:
                engine.stop(self._name)
        if self._held is not None:
            self._held += events
        else:
            self._call_home(self._publish, list(events))

    def fail(self, error: ModelError) -> None:
        """The engine lost the session."""
        self._call_home(self._lost, error)

    # On the event loop

    async def open(self, options: SessionOptions, state: bytes | None) -> None:
        """Begin in the engine, from what ``snapshot`` gave or from nothing.

        Raises:
            SnapshotError: the state is of another model.
            SessionError: the options cannot work.
        """
        policy = policy_of(options)

        def opening(engine: Engine) -> None:
            if state is None:
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
                engine.restore(self._name, state)
            if options.kept:
                engine.watch_kept(self._name, KEPT_FRAMES)

        try:
            await self._loop.attach(self._name, self, opening)
        except ContextError as failure:
            raise SessionError("context_length_exceeded", str(failure)) from None
        except PolicyError as failure:
            raise SessionError("invalid_value", f"memory: {failure}") from None

    async def close(self) -> None:
        """Leave the engine."""
        await self._loop.close(self._name)

    def end_again(self, ends: Mapping[str, int]) -> None:
        """End turns that are said once more after as many tokens as before."""
        self._loop.post(lambda _: self._ends.update(ends))

    def push(self, run: Sequence[Pixels]) -> None:
        """See frames that follow one another; nobody waits for it."""
        if run:
            frames = torch.stack([torch.from_numpy(np.array(pixels)) for pixels in run])
            self._loop.post(lambda engine: engine.push(self._name, frames))

    def ask(self, response: str, text: str, most: int | None) -> None:
        """Answer ``text`` as ``response``, in ``most`` tokens; nobody waits for it."""

        def ask(engine: Engine) -> None:
            if most is not None:
                self._ends.setdefault(response, most)
            engine.ask(self._name, response, text, most)

        self._loop.post(ask)

    async def stop(self, response: str | None) -> Stop | None:
        """End what is being said, or withdraw ``response``; what follows waits for ``release``."""

        def stop(engine: Engine) -> Stop | None:
            said = engine.speaking(self._name)
            if said is not None and response in (None, said.question):
                engine.stop(self._name)
                self._held = []
                return Stop(turn_name(said.frame, said.question), len(said.said))
            if response is not None and engine.withdraw(self._name, response):
                self._held = []
                return Stop(response, 0)
            return None

        return await self._loop.use(stop)

    async def release(self) -> None:
        """Pass on what was held back."""

        def release(_: Engine) -> None:
            held, self._held = self._held, None
            if held:
                self._call_home(self._publish, held)

        await self._loop.use(release)

    async def kept(self, frame: int) -> Kept | None:
        """What the router kept of a frame; None where it is not among the last ``KEPT_FRAMES``.

        Raises:
            UnknownSessionError: the engine does not have the session.
        """
        found = await self._loop.use(lambda engine: engine.kept(self._name, frame))
        if found is None:
            return None
        return Kept(frame, found.rows, found.columns, found.layers, found.counts)

    async def snapshot(self, *, with_cache: bool) -> bytes | None:
        """All that the engine knows of the session; None while anything waits."""
        return await self._loop.use(
            lambda engine: (
                None
                if engine.waits(self._name)
                else engine.snapshot(self._name, with_cache=with_cache)
            )
        )

    def _call_home(self, what: Callable[[Any], None], value: Any) -> None:
        try:
            self._home.call_soon_threadsafe(what, value)
        except RuntimeError:
            # The event loop has ended, and with it everybody who would hear of it.
            return
