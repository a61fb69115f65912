"""What the gateway counts of the requests that pass through it, and the route that tells."""

# Without postponed annotations: routes travel to the gateway's process with what their code names,
# and a type that stands in a string is not among it.
import logging
import time
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from fastapi import APIRouter, Request, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from longreel import metrics
from serve.live.items import SessionError
from serve.observe.ids import of_request, use
from serve.observe.instruments import GATEWAY, exposition
from serve.observe.traces import Span, span

_log = logging.getLogger("longreel.api")
_P = ParamSpec("_P")
_R = TypeVar("_R")

_REQUESTS = GATEWAY.counter(metrics.HTTP_REQUESTS)
_SECONDS = GATEWAY.histogram(metrics.HTTP_SECONDS)
_BYTES = GATEWAY.counter(metrics.HTTP_BYTES)
_SOCKETS = GATEWAY.gauge(metrics.SOCKETS)
_EVENT_STREAMS = GATEWAY.gauge(metrics.EVENT_STREAMS)
_DECODE_SECONDS = GATEWAY.histogram(metrics.DECODE_SECONDS)
_DECODE_REFUSED = GATEWAY.counter(metrics.DECODE_REFUSED)
_CODES = metrics.DECODE_REFUSED.labels["code"]
#: Of a client that asks with a method of its own making.
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_UNMATCHED = "unmatched"
_EXAMPLE = 'longreel_frames_accepted_total{kind="live",replica="0a1b2c"} 512.0'


class Measured:
    """ASGI middleware, the outermost: what others refuse counts too.

    Args:
        tells_ids: answers carry ``X-Request-Id``.
    """

    def __init__(self, app: ASGIApp, tells_ids: bool) -> None:
        self._app, self._tells_ids = app, tells_ids

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        # They hold beyond this call: the server logs what a route raises under them.
        ids = of_request(dict(scope["headers"]), scope["path"])
        use(ids)
        told = ids.request if self._tells_ids else None
        passing = _Passing(scope, receive, send, told)
        if passing.socket:
            _SOCKETS.inc()
        with span(passing.method, "SERVER") as spanned:
            try:
                await self._app(scope, passing.receive, passing.send)
            finally:
                if passing.socket:
                    _SOCKETS.dec()
                passing.end(spanned)


class _Passing:
    """One request, or one WebSocket, on its way through."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, request: str | None) -> None:
        self.socket = scope["type"] == "websocket"
        method = "WEBSOCKET" if self.socket else scope["method"]
        self.method = method if self.socket or method in _METHODS else "OTHER"
        self._request = request
        self._scope, self._receive, self._send = scope, receive, send
        self._began = time.perf_counter()
        self._head_s: float | None = None
        self._bytes = 0
        self._events = False
        # What a client sees of one that ends without a word: a broken connection.
        self._status = "1006" if self.socket else "500"

    async def receive(self) -> Message:
        """One message of the client's."""
        message = await self._receive()
        match message["type"]:
            case "http.request":
                self._bytes += len(message.get("body", b""))
            case "websocket.receive":
                self._bytes += len(message.get("bytes") or message.get("text") or b"")
            case "websocket.disconnect":
                self._status = str(message.get("code", 1005))
        return message

    async def send(self, message: Message) -> None:
        """One message to the client."""
        match message["type"]:
            case "http.response.start" | "websocket.accept" if self._request:
                told = (b"x-request-id", self._request.encode())
                message["headers"] = [*message.get("headers", ()), told]
        match message["type"]:
            case "http.response.start":
                self._status = str(message["status"])
                kinds = [v for k, v in message.get("headers", ()) if k.lower() == b"content-type"]
                if any(kind.startswith(b"text/event-stream") for kind in kinds):
                    self._head_s = time.perf_counter() - self._began
                    self._events = True
                    _EVENT_STREAMS.inc()
            case "websocket.close":
                self._status = str(message.get("code", 1000))
        await self._send(message)

    def end(self, span: Span) -> None:
        """It is over."""
        if self._events:
            _EVENT_STREAMS.dec()
        route = _route(self._scope)
        method, seconds = self.method, time.perf_counter() - self._began
        _REQUESTS.labels(route, method, self._status).inc()
        span.name(f"{method} {route}")
        span.set(http__route=route, http__request__method=method)
        if not self.socket:
            span.set(http__response__status_code=int(self._status))
        if self._status.startswith("5") and not self.socket:
            span.fail()
            _log.warning("%s %s ended in %s after %.3f s", method, route, self._status, seconds)
        _BYTES.labels(route).inc(self._bytes)
        if not self.socket:
            _SECONDS.labels(route, method).observe(self._head_s or seconds)


def _route(scope: Scope) -> str:
    """The route's template, never the path: that holds ids, and whatever a client makes up."""
    # Absent where none matched, or where it was refused before any was looked for.
    return getattr(scope.get("route"), "path", None) or _UNMATCHED


def measured_decoding(
    decode: Callable[_P, Awaitable[_R]],
) -> Callable[_P, Awaitable[_R]]:
    """``decode`` with its seconds, and what it refuses, told."""

    @wraps(decode)
    async def measured(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        began = time.perf_counter()
        try:
            return await decode(*args, **kwargs)
        except SessionError as error:
            _DECODE_REFUSED.labels(error.code if error.code in _CODES else "other").inc()
            raise
        finally:
            _DECODE_SECONDS.observe(time.perf_counter() - began)

    return measured


async def _metrics(request: Request) -> Response:
    """Of the gateway, its replicas and the session directory; see docs/operations.md."""
    samples = await request.app.state.context.metrics.gather()
    body, content_type = exposition(samples, request.headers.get("accept", ""))
    return Response(body, headers={"Content-Type": content_type})


def router() -> APIRouter:
    """``/metrics``."""
    api = APIRouter(tags=["health"])
    api.get(
        "/metrics",
        summary="Metrics in Prometheus' format",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"example": _EXAMPLE}}}},
    )(_metrics)
    return api
