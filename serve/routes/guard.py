"""Asks every client for its key, before anything else is looked at."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.keys.key import ApiKey
from serve.keys.ring import FRESH_S, KeyRing
from serve.keys.serving import NOBODY, Caller, serving
from serve.keys.usage import QuotaError, Usage
from serve.live.items import SessionError
from serve.routes.errors import BodyRefusedError, refusal_of, refuse

#: What needs no key: it carries nothing of any client.
_OPEN = frozenset(
    ("/", "/healthz", "/readyz", "/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json")
)
_OPEN_FOLDERS = ("/console/",)
_METRICS = ("/metrics", "/metrics/")
#: The protocol that our WebSockets speak, and what a browser's key stands behind beside it.
PROTOCOL, _KEY_PROTOCOL = "longreel", "longreel-key."
_REALM = {"WWW-Authenticate": "Bearer"}
#: Close code of a connection whose key was revoked: 4000 + the HTTP status.
REVOKED = 4401


def is_open(path: str, metrics: bool = True) -> bool:
    """Whether a path needs no key; ``metrics`` says whether those do not."""
    return path in _OPEN or path.startswith(_OPEN_FOLDERS) or (metrics and path in _METRICS)


class Guard:
    """ASGI middleware: lets in who has a key, and notes who that is.

    Connections and replies that last are ended some seconds after their key was revoked.

    Args:
        ring: the keys.
        metrics: ``/metrics`` needs none.
    """

    def __init__(self, app: ASGIApp, ring: KeyRing, metrics: bool = True) -> None:
        self._app, self._ring, self._metrics = app, ring, metrics
        self._usage: dict[str, Usage] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        if is_open(scope["path"], self._metrics):
            with serving(NOBODY):
                await self._app(scope, receive, send)
            return
        try:
            key = await self._ring.find(_sent_key(scope))
        except SessionError as error:
            await refuse(scope, receive, send, *refusal_of(error))
            return
        if key is None:
            message = "an API key is needed: send it as Authorization: Bearer KEY"
            if _sent_key(scope):
                message = "the API key is not known, or was revoked"
            await refuse(scope, receive, send, 401, message, "invalid_api_key", _REALM)
            return
        await self._serve(key, scope, receive, send)

    async def _serve(self, key: ApiKey, scope: Scope, receive: Receive, send: Send) -> None:
        usage = self._usage.setdefault(key.id, Usage.of(key.limits))
        answer = _Answer(scope, send)
        body: _CountedBody | None = None
        if scope["type"] == "http":
            try:
                body = _CountedBody(usage, scope, receive)
            except QuotaError as error:
                # A body that no day holds is too large; one that this day does not may come later.
                status = 413 if error.retry_after_s is None else 429
                refused = refusal_of(error)
                await refuse(scope, receive, send, status, *refused[1:])
                return
            receive = body.receive
        try:
            with serving(Caller(key.id, usage)):
                await self._while_it_holds(key.id, scope, receive, answer)
        finally:
            if body is not None:
                body.end()

    async def _while_it_holds(self, id_: str, scope: Scope, receive: Receive, answer: Any) -> None:
        """The application's answer, broken off where the key is revoked meanwhile."""
        task, cancels = asyncio.current_task(), 0
        assert task is not None
        watching: asyncio.Task[None] | None = None

        async def watch() -> None:
            nonlocal cancels
            while True:
                if not await self._ring.holds(id_):
                    # Again where a library took the first for one of its own.
                    cancels += task.cancel()
                await asyncio.sleep(FRESH_S)

        def begin() -> None:
            nonlocal watching
            watching = asyncio.create_task(watch(), name=f"key-{id_}")

        # Most requests have ended by then and cost a timer.
        timer = asyncio.get_running_loop().call_later(FRESH_S, begin)

        def end() -> bool:
            """Watch no longer; whether the key, and nobody else, ended the answer."""
            timer.cancel()
            if watching is not None:
                watching.cancel()
            for _ in range(cancels):
                task.uncancel()
            return cancels > 0 and not task.cancelling()

        try:
            await self._app(scope, receive, answer.send)
        except asyncio.CancelledError:
            if not end():
                raise
            await answer.break_off(receive)
        except BaseException:
            end()
            raise
        else:
            end()


class _Answer:
    """What the application has sent so far, so that it can be ended in order."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope, self._send = scope, send
        self._begun = self._ended = False

    async def send(self, message: Message) -> None:
        kind = message["type"]
        self._begun = self._begun or kind in ("http.response.start", "websocket.accept")
        if kind == "websocket.close" or kind.startswith("websocket.http"):
            self._ended = True
        if kind == "http.response.body" and not message.get("more_body", False):
            self._ended = True
        await self._send(message)

    async def break_off(self, receive: Receive) -> None:
        """The key was revoked: say so where that is still possible, and end."""
        message = "the API key was revoked"
        if self._ended:
            return
        if not self._begun:
            await refuse(self._scope, receive, self._send, 401, message, "invalid_api_key", _REALM)
        elif self._scope["type"] == "websocket":
            await self._send({"type": "websocket.close", "code": REVOKED, "reason": message})
        else:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})


class _CountedBody:
    """The body of a request, counted against what its key may send.

    What the head declares is taken at once, and given back at the end where it did not come.

    Raises:
        QuotaError: as much as is declared is not left.
    """

    def __init__(self, usage: Usage, scope: Scope, receive: Receive) -> None:
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        self._taken = int(declared) if declared.isdigit() else 0
        self._usage, self._receive, self._seen = usage, receive, 0
        usage.upload.take(self._taken)

    async def receive(self) -> Message:
        part = await self._receive()
        self._seen += len(part.get("body", b""))
        if self._seen > self._taken:
            try:
                self._usage.upload.take(self._seen - self._taken)
            except QuotaError as error:
                raise BodyRefusedError(error) from None
            self._taken = self._seen
        return part

    def end(self) -> None:
        """Nothing more comes."""
        self._usage.upload.give_back(max(0, self._taken - self._seen))


def _sent_key(scope: Scope) -> str:
    """What stands where a key should, empty where nothing does."""
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, key = value.decode("latin-1").partition(" ")
            return key.strip() if scheme.lower() == "bearer" else ""
    # Browsers let a page set no header of a WebSocket but this one.
    for protocol in scope.get("subprotocols") or ():
        if protocol.startswith(_KEY_PROTOCOL):
            return str(protocol[len(_KEY_PROTOCOL) :])
    return ""
