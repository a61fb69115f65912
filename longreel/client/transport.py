"""Carries steps out over httpx: one way for plain code, the same again for asyncio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from typing import Any, TypeVar

import httpx

from longreel.client import wire
from longreel.client.errors import APIError
from longreel.client.steps import Emit, LostError, Next, Pause, Request, Send, Steps, Take

T = TypeVar("T")
#: Told what failed, and in how many seconds it is tried again.
OnRetry = Callable[[APIError, float], None]


class Transport:
    """Connections of a plain client."""

    def __init__(self, http: httpx.Client, on_retry: OnRetry | None) -> None:
        self._http = http
        self._on_retry = on_retry

    def close(self) -> None:
        """End all connections."""
        self._http.close()

    def run(self, steps: Steps[T]) -> T:
        """The result of a call; what it emits is not wanted."""
        iteration = self.iterate(steps)
        while True:
            try:
                next(iteration)
            except StopIteration as end:
                result: T = end.value
                return result

    def iterate(self, steps: Steps[T]) -> Generator[Any, None, T]:
        """Yields what a call emits, and returns its result."""
        opened: httpx.Response | None = None
        pieces: Iterator[bytes] = iter(())
        request = Request("GET", "")
        answer: Any = None
        failure: LostError | None = None
        try:
            while True:
                try:
                    step = steps.throw(failure) if failure else steps.send(answer)
                except StopIteration as end:
                    result: T = end.value
                    return result
                answer = failure = None
                if isinstance(step, Emit):
                    yield step.value
                    continue
                try:
                    if isinstance(step, Pause):
                        if self._on_retry is not None and step.failure is not None:
                            self._on_retry(step.failure, step.seconds)
                        time.sleep(step.seconds)
                    elif isinstance(step, Take):
                        step.turn.acquire()
                    elif isinstance(step, Next):
                        answer = next(pieces, b"")
                    else:
                        if opened is not None:
                            opened.close()
                        request = step.request
                        opened = self._send(request)
                        pieces = opened.iter_bytes()
                        whole = isinstance(step, Send) or opened.status_code >= 300
                        answer = wire.reply(opened, opened.read() if whole else b"")
                except httpx.TransportError as error:
                    failure = wire.lost(error, request)
        finally:
            steps.close()
            if opened is not None:
                opened.close()

    def _send(self, request: Request) -> httpx.Response:
        return self._http.send(wire.built(self._http, request), stream=True)


class AsyncTransport:
    """Connections of a client in an event loop."""

    def __init__(self, http: httpx.AsyncClient, on_retry: OnRetry | None) -> None:
        self._http = http
        self._on_retry = on_retry

    async def close(self) -> None:
        """End all connections."""
        await self._http.aclose()

    async def run(self, steps: Steps[T]) -> T:
        """The result of a call; what it emits is not wanted."""
        result: list[T] = []
        async for _ in self.iterate(steps, result):
            pass
        return result[0]

    async def iterate(
        self, steps: Steps[T], result: list[T] | None = None
    ) -> AsyncGenerator[Any, None]:
        """Yields what a call emits; its result goes to ``result``."""
        opened: httpx.Response | None = None
        pieces: AsyncIterator[bytes] | None = None
        request = Request("GET", "")
        answer: Any = None
        failure: LostError | None = None
        try:
            while True:
                try:
                    step = steps.throw(failure) if failure else steps.send(answer)
                except StopIteration as end:
                    if result is not None:
                        result.append(end.value)
                    return
                answer = failure = None
                if isinstance(step, Emit):
                    yield step.value
                    continue
                try:
                    if isinstance(step, Pause):
                        if self._on_retry is not None and step.failure is not None:
                            self._on_retry(step.failure, step.seconds)
                        await asyncio.sleep(step.seconds)
                    elif isinstance(step, Take):
                        await step.turn.acquire()
                    elif isinstance(step, Next):
                        answer = b"" if pieces is None else await anext(pieces, b"")
                    else:
                        if opened is not None:
                            await opened.aclose()
                        request = step.request
                        opened = await self._send(request)
                        pieces = opened.aiter_bytes()
                        whole = isinstance(step, Send) or opened.status_code >= 300
                        answer = wire.reply(opened, await opened.aread() if whole else b"")
                except httpx.TransportError as error:
                    failure = wire.lost(error, request)
        finally:
            steps.close()
            if opened is not None:
                await opened.aclose()

    async def _send(self, request: Request) -> httpx.Response:
        return await self._http.send(wire.built(self._http, request), stream=True)
