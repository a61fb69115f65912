"""Decoding processes of one gateway: who is free, who waits, what happens when one dies."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from serve.decoding.media import MediaError
from serve.decoding.process import DecoderDiedError, Fetch, Process
from serve.live.items import SessionError

_log = logging.getLogger("longreel.api")

#: How long a call that nobody waits for any more may go on: most end sooner than a process starts.
_ABANDONED_S = 1.0
#: Codes that a call may end with; what else a process says is not believed.
_CODES = frozenset(
    ("media_error", "media_too_large", "unsupported_media_type", "url_unreachable", "invalid_value")
)
_MOST_MESSAGE = 500

#: Takes each part of an answer.
TakePart = Callable[[dict[str, Any], bytearray], None]


@dataclass
class Counts:
    """What became of calls, and of the processes that served them."""

    calls: int = 0
    refused: int = 0
    started: int = 0
    died: int = 0
    timed_out: int = 0


class CallError(MediaError):
    """A call that a process ended with an error; ``number`` is of the picture, where it said so."""

    def __init__(self, code: str, message: str, number: int | None = None) -> None:
        super().__init__(code, message)
        self.number = number


@dataclass
class _Ticket:
    """A call that waits for a process, in whichever event loop."""

    loop: asyncio.AbstractEventLoop
    turn: asyncio.Future[None]

    def wake(self) -> None:
        """Its turn has come."""
        self.loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        if not self.turn.done():
            self.turn.set_result(None)


@dataclass
class Pool:
    """Some processes that calls take in turn; any thread's event loop may call.

    Attributes:
        most: processes at a time; they are started when they are needed.
        most_waiting: calls that may wait for one; those beyond are refused.
        memory_bytes: of each process.
    """

    most: int
    most_waiting: int
    memory_bytes: int
    counts: Counts = field(default_factory=Counts)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _idle: list[Process] = field(default_factory=list)
    _all: set[Process] = field(default_factory=set)
    _taken: int = 0
    _waiting: deque[_Ticket] = field(default_factory=deque)
    _owner: int = field(default_factory=os.getpid)

    def __post_init__(self) -> None:
        atexit.register(self.close)

    @property
    def pids(self) -> set[int]:
        """Of the processes that run."""
        with self._lock:
            return {process.pid for process in self._all}

    async def warm(self) -> None:
        """Start a process, so that the first call need not wait for one."""
        await self._turn()
        process: Process | None = None
        try:
            process = await self._process()
        except DecoderDiedError as death:
            _log.error("a decoding process cannot be started: %s", death.why)
        finally:
            self._release(process)

    async def call(
        self,
        call: dict[str, Any],
        payload: list[bytes],
        part: TakePart,
        limit_s: float,
        fetch: Fetch | None = None,
    ) -> None:
        """One call; see ``Process.call``. A process that died without a word is asked once more.

        Raises:
            SessionError: ``overloaded``: too many wait; ``unavailable``: no process can be had.
            CallError: the call failed, was too slow, or ended its process.
        """
        self.counts.calls += 1
        await self._turn()
        doing = asyncio.ensure_future(self._done(call, payload, part, limit_s, fetch))
        try:
            await asyncio.shield(doing)
        except asyncio.CancelledError:
            # The process is freed by the answer, if that comes soon.
            asyncio.get_running_loop().call_later(_ABANDONED_S, doing.cancel)
            doing.add_done_callback(lambda done: done.cancelled() or done.exception())
            raise

    async def _done(
        self,
        call: dict[str, Any],
        payload: list[bytes],
        part: TakePart,
        limit_s: float,
        fetch: Fetch | None,
    ) -> None:
        process: Process | None = None
        told = False

        def take(said: dict[str, Any], data: bytearray) -> None:
            nonlocal told
            told = True
            part(said, data)

        try:
            for last in (False, True):
                try:
                    process = await self._process()
                    answer = await process.call(call, payload, take, limit_s, fetch)
                except DecoderDiedError as death:
                    self._lost(process, death)
                    if process is None:
                        raise SessionError(
                            "unavailable", "pictures and videos cannot be decoded at present"
                        ) from None
                    process = None
                    if death.slow:
                        raise CallError(
                            "media_error", f"it takes more than {limit_s:g} s to decode"
                        ) from None
                    if last or told:
                        raise CallError(
                            "media_error",
                            f"decoding it ends the process that does it ({death.why})",
                        ) from None
                else:
                    self._judge(answer)
                    return
        except asyncio.CancelledError:
            if process is not None:
                process.kill()
            raise
        finally:
            self._release(process)

    def _judge(self, answer: dict[str, Any]) -> None:
        if answer.get("done") is True:
            return
        if answer.get("unforeseen"):
            _log.warning("decoding met what it did not foresee: %.500s", answer["unforeseen"])
        self.counts.refused += 1
        code, message, number = (answer.get(name) for name in ("code", "message", "number"))
        if code not in _CODES:
            code = "media_error"
        raise CallError(
            code, str(message)[:_MOST_MESSAGE], number if isinstance(number, int) else None
        )

    def _lost(self, process: Process | None, death: DecoderDiedError) -> None:
        if death.slow:
            self.counts.timed_out += 1
        else:
            self.counts.died += 1
            _log.warning("a decoding process ended: %s", death.why)
        if process is not None:
            with self._lock:
                self._all.discard(process)

    async def _turn(self) -> None:
        """Until this call may have a process; ``_release`` ends that."""
        with self._lock:
            if self._taken < self.most and not self._waiting:
                self._taken += 1
                return
            if len(self._waiting) >= self.most_waiting:
                raise SessionError("overloaded", "too many pictures and videos wait to be decoded")
            loop = asyncio.get_running_loop()
            ticket = _Ticket(loop, loop.create_future())
            self._waiting.append(ticket)
        try:
            await ticket.turn
        except asyncio.CancelledError:
            with self._lock:
                waits = ticket in self._waiting
                if waits:
                    self._waiting.remove(ticket)
            if not waits:  # its turn had come already
                self._release(None)
            raise

    async def _process(self) -> Process:
        """A process that takes calls. Raises ``DecoderDiedError`` where none can be started."""
        while True:
            with self._lock:
                process = self._idle.pop() if self._idle else None
            if process is None:
                break
            if process.usable:
                return process
            self._lost(process, DecoderDiedError("it ended while it was idle"))
        try:
            process = await asyncio.to_thread(Process, self.memory_bytes)
        except OSError as failure:
            raise DecoderDiedError(f"it cannot be started: {failure.strerror}") from None
        self.counts.started += 1
        try:
            await process.begun()
        except BaseException:
            process.kill()
            raise
        with self._lock:
            self._all.add(process)
        return process

    def _release(self, process: Process | None) -> None:
        with self._lock:
            if process is not None and process.usable:
                self._idle.append(process)
            elif process is not None:
                self._all.discard(process)
            self._taken -= 1
            while self._waiting:
                try:
                    self._waiting.popleft().wake()
                except RuntimeError:  # its event loop was closed before its turn came
                    continue
                self._taken += 1
                break

    def close(self) -> None:
        """End all processes."""
        if os.getpid() != self._owner:  # a fork of the one that has them
            return
        with self._lock:
            processes, self._idle, self._all = list(self._all), [], set()
        for process in processes:
            process.kill()
