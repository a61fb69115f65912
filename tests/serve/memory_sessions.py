"""Live sessions in this process's memory, with a model simple enough to foretell.

It stands in for ``serve.pinned`` where a test is about HTTP and not about replicas: it keeps the
contract of ``serve.calls.Sessions`` and its words can be worked out by hand.

The model speaks at every frame whose mean brightness is above a half, as ``A bright scene at
3.00 s.``, and answers every question with ``You asked: <text> Frames seen: <n>.``; both come word
by word. ``p_silence`` is one minus the brightness (0-1).
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from serve.calls import Sessions
from serve.live.items import (
    Frame,
    Input,
    Kept,
    Question,
    Receipt,
    SessionError,
    SessionEvent,
    SessionOptions,
    SessionView,
)

MODEL_FPS = 2.0


@dataclass
class MemorySessions:
    """Sessions of one event loop.

    Attributes:
        step_s: seconds that a frame, and each word that is said, takes; 0 is at once.
        fps: of sessions that name none.
        side: height and width that frames must have; None takes any.
        most_sessions: beyond it, opening one is refused as ``overloaded``.
        most_waiting: frames that may wait in a session; those beyond are dropped for ``lag``.
        refusal: every call raises it while it is set.
    """

    step_s: float = 0.0
    fps: float = MODEL_FPS
    side: int | None = None
    most_sessions: int = 100
    most_waiting: int = 1000
    refusal: SessionError | None = None
    _sessions: dict[str, _Session] = field(default_factory=dict, init=False)
    _numbers: Any = field(default_factory=lambda: itertools.count(1), init=False)

    async def open(self, options: SessionOptions, session: str | None = None) -> SessionView:
        """See ``Sessions``."""
        await self._pass()
        open_ones = sum(not s.closed for s in self._sessions.values())
        if open_ones >= self.most_sessions:
            raise SessionError("overloaded", f"all {self.most_sessions} sessions are taken")
        name = session or f"session-{next(self._numbers)}"
        if name in self._sessions:
            raise SessionError("invalid_value", f"there is a session {name!r} already")
        self._sessions[name] = _Session(name, options, options.fps or self.fps, self)
        return self._sessions[name].view()

    async def give(
        self, session: str, inputs: Sequence[Input], seq: int | None = None
    ) -> list[Receipt]:
        """See ``Sessions``."""
        await self._pass()
        return self._live(session).give(inputs, seq)

    async def cancel(self, session: str, response: str | None = None) -> bool:
        """See ``Sessions``."""
        await self._pass()
        return self._live(session).cancel(response)

    async def events(
        self, session: str, after: int = 0, wait_s: float = 10.0
    ) -> list[SessionEvent]:
        """See ``Sessions``; a closed session still tells what happened in it."""
        await self._pass()
        return await self._known(session).events_after(after, wait_s)

    async def kept(self, session: str, frame: int) -> Kept:
        """See ``Sessions``; nothing is routed, so nothing is remembered."""
        await self._pass()
        self._live(session)
        raise SessionError("invalid_value", "the session was opened without kept")

    async def view(self, session: str) -> SessionView:
        """See ``Sessions``."""
        await self._pass()
        return self._known(session).view()

    async def owner(self, session: str) -> str | None:
        """See ``Sessions``."""
        await self._pass()
        return self._known(session).view().options.owner

    async def list(self) -> list[SessionView]:
        """See ``Sessions``."""
        await self._pass()
        return [s.view() for s in self._sessions.values() if not s.closed]

    async def close(self, session: str) -> None:
        """See ``Sessions``."""
        await self._pass()
        self._live(session).close()

    def forget(self, session: str) -> None:
        """Of a closed one: its name is free again."""
        del self._sessions[session]

    async def rest(self) -> None:
        """Let a step's time go by; a new ``step_s`` holds for steps that have begun, too."""
        began = time.monotonic()
        await asyncio.sleep(0)
        while (left := began + self.step_s - time.monotonic()) > 0:
            await asyncio.sleep(min(left, 0.02))

    async def _pass(self) -> None:
        await asyncio.sleep(0)  # as a call to a replica, which lets others go on
        if self.refusal:
            raise self.refusal

    def _known(self, session: str) -> _Session:
        if session not in self._sessions:
            raise SessionError("session_not_found", f"there is no session {session!r}")
        return self._sessions[session]

    def _live(self, session: str) -> _Session:
        found = self._known(session)
        if found.closed:
            raise SessionError("session_closed", f"session {session!r} is closed")
        return found


@dataclass
class _Waiting:
    """A frame that was accepted, or a question; ``label`` is the number or the response's id."""

    given: Input
    label: int | str
    cancelled: bool = False


class _Session:
    """One session; what waits is worked through by a task that ends when nothing waits."""

    def __init__(
        self, name: str, options: SessionOptions, fps: float, owner: MemorySessions
    ) -> None:
        self.closed = False
        self._name, self._options, self._fps, self._owner = name, options, fps, owner
        self._created = time.time()
        self._receipts: list[Receipt] = []
        self._events: list[SessionEvent] = []
        self._told = asyncio.Event()
        self._queue: deque[_Waiting] = deque()
        self._current: _Waiting | None = None
        self._worker: asyncio.Task[None] | None = None
        self._last_s: float | None = None
        self._frames = self._seen = 0

    def view(self) -> SessionView:
        return SessionView(
            id=self._name,
            state="closed" if self.closed else "live",
            options=self._options,
            seq=len(self._receipts),
            frames=self._frames,
            waiting_frames=self._waiting_frames(),
            events=len(self._events),
            replica="memory",
            epoch=1,
            created=self._created,
        )

    def give(self, inputs: Sequence[Input], seq: int | None) -> list[Receipt]:
        first = len(self._receipts) + 1 if seq is None else seq
        if first < 1:
            raise SessionError("invalid_value", f"sequence numbers start at 1, not {first}")
        if first > len(self._receipts) + 1:
            raise SessionError(
                "sequence_gap", f"expected number {len(self._receipts) + 1}, not {first}"
            )
        for given in inputs:  # before any is taken in: all or none
            self._check(given)
        receipts = [self._take(number, given) for number, given in enumerate(inputs, first)]
        if self._queue and self._worker is None:
            self._worker = asyncio.create_task(self._work(), name=f"memory-{self._name}")
        return receipts

    def cancel(self, response: str | None) -> bool:
        if response is None:
            found = self._current
        else:
            here = [*self._queue, *([self._current] if self._current else [])]
            found = next((w for w in here if w.label == response), None)
        if found is None or found.cancelled:
            return False
        found.cancelled = True
        return True

    def close(self) -> None:
        self.closed = True
        self._queue.clear()
        if self._worker:
            self._worker.cancel()
            self._worker = None
        self._tell("session.closed")

    async def events_after(self, after: int, wait_s: float) -> list[SessionEvent]:
        if after >= len(self._events) and not self.closed:
            told = self._told
            try:
                async with asyncio.timeout(wait_s):
                    await told.wait()
            except TimeoutError:
                return []
        return self._events[after:]

    def _waiting_frames(self) -> int:
        return self._frames - self._seen

    def _check(self, given: Input) -> None:
        if isinstance(given, Question):
            if not given.text.strip():
                raise SessionError("invalid_value", "the question is empty")
            return
        side = self._owner.side
        shape = given.pixels.shape
        if len(shape) != 3 or shape[2] != 3 or (side and shape[:2] != (side, side)):
            raise SessionError("invalid_frame", f"frames must be (side, side, 3), not {shape}")
        if given.time_s is not None and not math.isfinite(given.time_s):
            raise SessionError("invalid_frame", f"no time of a frame: {given.time_s}")

    def _take(self, seq: int, given: Input) -> Receipt:
        if seq <= len(self._receipts):
            old = self._receipts[seq - 1]
            return Receipt(seq, old.outcome, old.reason, old.frame, old.response, repeated=True)
        if isinstance(given, Question):
            response = f"{self._name}-response-{seq}"
            receipt = Receipt(seq, "accepted", response=response, event=len(self._events))
            self._queue.append(_Waiting(given, receipt.response or ""))
        else:
            receipt = self._take_frame(seq, given)
        self._receipts.append(receipt)
        return receipt

    def _take_frame(self, seq: int, frame: Frame) -> Receipt:
        step = 1.0 / self._fps
        if frame.time_s is None:
            time_s = 0.0 if self._last_s is None else self._last_s + step
        else:
            time_s = frame.time_s
        reason: Literal["rate", "late", "lag"] | None = None
        if self._last_s is not None and time_s <= self._last_s:
            reason = "late"
        elif self._last_s is not None and time_s < self._last_s + step - 1e-6:
            reason = "rate"
        elif self._waiting_frames() >= self._owner.most_waiting:
            reason = "lag"
        if reason:
            return Receipt(seq, "dropped", reason, event=len(self._events))
        self._last_s = time_s
        receipt = Receipt(seq, "accepted", frame=self._frames, event=len(self._events))
        self._queue.append(_Waiting(Frame(frame.pixels, time_s), self._frames))
        self._frames += 1
        return receipt

    async def _work(self) -> None:
        while self._queue:
            self._current = self._queue.popleft()
            if isinstance(self._current.given, Question):
                await self._answer(self._current, self._current.given)
            else:
                await self._see(self._current, self._current.given)
            self._current = None
        self._worker = None

    async def _see(self, waiting: _Waiting, frame: Frame) -> None:
        await self._owner.rest()
        brightness = float(frame.pixels.mean()) / 255.0
        silence = 1.0 - brightness
        speaks = brightness > 0.5 or silence < self._options.silence_threshold
        at: dict[str, Any] = {"frame": waiting.label, "time_s": frame.time_s}
        self._seen += 1
        self._tell("frame.seen", **at, p_silence=round(silence, 4), speaks=speaks)
        if speaks:
            # A frame that is seen has ended; what may be cancelled is what is said about it.
            words = f"A bright scene at {frame.time_s:.2f} s.".split()
            said = await self._say("narration.delta", at, words, waiting, self._bound(None))
            self._tell("narration", **at, text=said, cancelled=waiting.cancelled)

    async def _answer(self, waiting: _Waiting, question: Question) -> None:
        about = {"response": waiting.label}
        seq = next(r.seq for r in self._receipts if r.response == waiting.label)
        self._tell("response.created", **about, seq=seq)
        words = f"You asked: {question.text} Frames seen: {self._seen}.".split()
        bound = self._bound(question.max_tokens)
        said = await self._say("response.delta", about, words, waiting, bound)
        status = "cancelled" if waiting.cancelled else "completed"
        if not waiting.cancelled and len(words) > bound:
            status = "length"
        count = len(said.split())
        self._tell("response.done", **about, text=said, status=status, output_tokens=count)

    def _bound(self, most: int | None) -> int:
        return most if most is not None else self._options.max_tokens

    async def _say(
        self, type_: str, about: dict[str, Any], words: list[str], waiting: _Waiting, bound: int
    ) -> str:
        """Tell ``words`` one by one, a token each; what was said before a cancel."""
        said = ""
        for word in words[:bound]:
            await self._owner.rest()
            if waiting.cancelled:
                break
            delta = f" {word}" if said else word
            said += delta
            self._tell(type_, **about, delta=delta)
        return said

    def _tell(self, type_: str, **data: Any) -> None:
        self._events.append(SessionEvent(len(self._events) + 1, type_, data))
        told, self._told = self._told, asyncio.Event()
        told.set()


def _keeps_the_contract(sessions: MemorySessions) -> Sessions:
    """For mypy: what tests give to routes is what routes ask for."""
    return sessions
