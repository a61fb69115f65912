"""The HTTP API on loopback with sessions in memory, and what can go wrong on the way to it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn

from serve.chat import Answered
from serve.routes.app import build
from serve.routes.context import ApiSettings, Context, Jobs, ModelInfo, Streams
from tests.ports import free_ports
from tests.serve.memory_sessions import MemorySessions

_START_S = 30.0
_Scope = MutableMapping[str, Any]


@dataclass
class Fault:
    """What befalls the next ``times`` requests whose method and path fit.

    Attributes:
        path: a part of the path.
        status: answer so instead of asking the service; with ``retry_after`` seconds.
        after_chunks: let the service answer, but break the connection off after so many pieces
            of the body; 0 is after the head.
    """

    path: str
    method: str = ""
    times: int = 1
    status: int | None = None
    retry_after: str | None = None
    code: str = "unavailable"
    after_chunks: int = 0

    def fits(self, scope: _Scope) -> bool:
        return (
            self.times > 0 and self.path in scope["path"] and self.method in ("", scope["method"])
        )


class _BrokenError(Exception):
    """Makes the server end the connection amid a reply."""


@dataclass
class Service:
    """A running service; ``stop`` and ``start`` are a restart that keeps every session."""

    store: Path
    sessions: MemorySessions = field(default_factory=MemorySessions)
    streams: Streams | None = None
    jobs: Jobs | None = None
    faults: list[Fault] = field(default_factory=list)
    #: Method, path, and headers by name, of every request.
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: uvicorn.Server | None = None
        self._serving: Any = None
        self.context = Context(
            sessions=self.sessions,
            answers=_Answers(),
            model=ModelInfo(
                name="longreel-tiny",
                revision="r1",
                side=96,
                fps=2.0,
                keep_ratio=0.2,
                router="bounded",
                tokens_per_frame=10,
                digest=True,
                summary_request="Summarize.",
            ),
            store=str(self.store),
            settings=ApiSettings(allow_private_urls=True),
            streams=self.streams,
            jobs=self.jobs,
        )

    def __enter__(self) -> Service:
        self._thread.start()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_START_S)

    def start(self) -> None:
        """Returns once it listens."""
        app = build(self.context)

        async def faulty(scope: _Scope, receive: Any, send: Any) -> None:
            await self._pass(app, scope, receive, send)

        config = uvicorn.Config(
            faulty, "127.0.0.1", self.port, log_level="critical", lifespan="off"
        )
        server = self._server = uvicorn.Server(config)
        self._serving = asyncio.run_coroutine_threadsafe(server.serve(), self._loop)
        deadline = time.monotonic() + _START_S
        while not server.started:
            assert time.monotonic() < deadline
            assert not self._serving.done()
            time.sleep(0.01)

    def stop(self) -> None:
        """Ends every connection, whatever it carries."""
        server, self._server = self._server, None
        if server is not None:
            server.should_exit = server.force_exit = True
            self._serving.result(_START_S)

    def call(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """The result of a coroutine in the service's own loop."""
        return asyncio.run_coroutine_threadsafe(work(), self._loop).result(_START_S)

    def requests(self, path: str, method: str = "") -> list[dict[str, str]]:
        """Headers of the requests so far whose path ends so."""
        return [
            headers for made, at, headers in self.seen if at.endswith(path) and method in ("", made)
        ]

    async def _pass(self, app: Any, scope: _Scope, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        headers = {k.decode(): v.decode() for k, v in scope["headers"]}
        self.seen.append((scope["method"], scope["path"], headers))
        fault = next((f for f in self.faults if f.fits(scope)), None)
        if fault is None:
            await app(scope, receive, send)
            return
        fault.times -= 1
        if fault.status is not None:
            await _refuse(fault, send)
            return
        left = fault.after_chunks

        async def cut(message: MutableMapping[str, Any]) -> None:
            nonlocal left
            if message["type"] == "http.response.body" and message.get("body"):
                if not left:
                    raise _BrokenError
                left -= 1
            await send(message)

        try:
            await app(scope, receive, cut)
        except* _BrokenError:
            raise _BrokenError from None


async def _refuse(fault: Fault, send: Any) -> None:
    body = b'{"error": {"message": "not now", "type": "server_error", "param": null, "code": "%s"}}'
    headers = [(b"content-type", b"application/json")]
    if fault.retry_after is not None:
        headers.append((b"retry-after", fault.retry_after.encode()))
    await send({"type": "http.response.start", "status": fault.status, "headers": headers})
    await send({"type": "http.response.body", "body": body % fault.code.encode()})


class _Answers:
    async def chat(self, system: str, text: str, most_tokens: int) -> Answered:
        words = f"You wrote: {text}".split()
        return Answered(
            text=" ".join(words[:most_tokens]),
            finish_reason="length" if len(words) > most_tokens else "stop",
            prompt_tokens=len(text.split()),
            completion_tokens=min(len(words), most_tokens),
        )

    async def tokens(self, texts: Sequence[str]) -> int:
        return sum(len(text.split()) for text in texts)
