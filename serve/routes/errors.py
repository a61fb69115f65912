"""Errors as clients see them, in OpenAI's shape, and what makes them of exceptions."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from longreel.errors import LongreelError, StorageError, UsageError
from serve.live.items import SessionError

_log = logging.getLogger("longreel.api")

#: HTTP status of each ``SessionError.code``; a code that is not here is the caller's fault, 400.
STATUS = {
    "session_not_found": 404,
    "frame_not_found": 404,
    "model_not_found": 404,
    "file_not_found": 404,
    "session_closed": 410,
    "sequence_gap": 409,
    "invalid_frame": 400,
    "invalid_value": 400,
    "context_length_exceeded": 400,
    "media_error": 400,
    "url_not_allowed": 400,
    "url_unreachable": 400,
    "media_too_large": 413,
    "unsupported_media_type": 415,
    "overloaded": 429,
    "quota_exceeded": 429,
    "unavailable": 503,
    "model_error": 500,
    # Nobody hears it; it is no fault of the service.
    "client_closed": 400,
}
#: Seconds after which a client may try again, where that may help.
RETRY_AFTER_S = {429: 5, 503: 2}
_CODES = {
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "media_too_large",
    429: "overloaded",
}


class BodyRefusedError(HTTPException):
    """A ``SessionError`` amid the reading of a body: FastAPI lets this class pass, and takes any
    other for a body that is not JSON.
    """

    def __init__(self, error: SessionError) -> None:
        status, message, self.code, headers = refusal_of(error)
        super().__init__(status, message, headers)


def error_object(
    status: int, message: str, code: str | None, param: str | None = None
) -> dict[str, Any]:
    """The body of an error: ``{"error": {"message", "type", "param", "code"}}``."""
    if status >= 500:
        kind = "server_error"
    else:
        kind = "rate_limit_error" if status == 429 else "invalid_request_error"
    # What a client sent may be in them, and need not be text that UTF-8 can hold.
    message = message.encode(errors="replace").decode()
    param = param and param.encode(errors="replace").decode()
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def status_of(error: SessionError) -> int:
    """HTTP status that says it."""
    return STATUS.get(error.code, 400)


def refusal_of(error: SessionError) -> tuple[int, str, str, dict[str, str]]:
    """What ``error_response`` takes for it: status, message, code, headers."""
    wait_s = getattr(error, "retry_after_s", None)
    headers = {} if wait_s is None else {"Retry-After": str(max(1, math.ceil(wait_s)))}
    return status_of(error), error.message, error.code, headers


def error_response(
    status: int,
    message: str,
    code: str | None,
    param: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """The response that says it, with ``Retry-After`` where that may help."""
    extra = dict(headers or {})
    if status in RETRY_AFTER_S:
        extra.setdefault("Retry-After", str(RETRY_AFTER_S[status]))
    body = error_object(status, message, code, param)
    return JSONResponse(body, status_code=status, headers=extra)


async def refuse(
    scope: Scope,
    receive: Receive,
    send: Send,
    status: int,
    message: str,
    code: str,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Answer so before anything of the request is read; of a WebSocket, its handshake.

    The arguments after ``send`` are those of ``error_response``.
    """
    response = error_response(status, message, code, headers=headers)
    if scope["type"] == "http":
        await response(scope, receive, send)
        return
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": 4000 + status, "reason": message})
        return
    await send(
        {
            "type": "websocket.http.response.start",
            "status": status,
            "headers": response.raw_headers,
        }
    )
    await send({"type": "websocket.http.response.body", "body": response.body})


def install(app: FastAPI) -> None:
    """Every exception that a route lets out is answered in OpenAI's shape."""

    @app.exception_handler(SessionError)
    async def session(request: Request, error: SessionError) -> JSONResponse:
        status, message, code, headers = refusal_of(error)
        return error_response(status, message, code, headers=headers)

    @app.exception_handler(UsageError)
    async def usage(request: Request, error: UsageError) -> JSONResponse:
        return error_response(400, str(error), "invalid_value")

    @app.exception_handler(StorageError)
    async def store(request: Request, error: StorageError) -> JSONResponse:
        # What a client's own address cannot give is a ``SessionError`` where it is read. Where the
        # state store lies is no client's to know.
        _log.error("%s %s: %s", request.method, request.url.path, error)
        return error_response(503, f"the state store fails: {error.kind}", "unavailable")

    @app.exception_handler(LongreelError)
    async def failed(request: Request, error: LongreelError) -> JSONResponse:
        _log.error("%s %s: %s", request.method, request.url.path, error)
        return error_response(500, str(error), "internal_error")

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        problems = error.errors()
        if problems[0]["type"] == "json_invalid":
            return error_response(400, "the body is not JSON", "invalid_value")
        message, param = first_problem(problems, inner=1)
        return error_response(422, message, "invalid_value", param)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        status, detail = error.status_code, error.detail
        if status == 404 and detail == HTTPStatus(404).phrase:
            detail = f"there is no {request.method} {request.url.path}"
        code = _CODES.get(status, "invalid_value" if status < 500 else "internal_error")
        if isinstance(error, BodyRefusedError):
            code = error.code
        return error_response(status, str(detail), code, headers=error.headers)

    @app.exception_handler(ClientDisconnect)
    async def left(request: Request, error: ClientDisconnect) -> JSONResponse:
        # Nobody hears it; without an answer the server would log a fault of its own.
        return error_response(400, "the client left amid the body", "client_closed")

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        # Starlette raises it on to the server, whose log has the traceback; the client gets none.
        return error_response(500, "the service failed; its log says why", "internal_error")


def first_problem(problems: Sequence[Any], inner: int = 0) -> tuple[str, str | None]:
    """What the first of pydantic's problems says, and the field that it is about.

    Args:
        inner: parts of its place that do not count, such as ``body``.
    """
    field = ".".join(str(part) for part in problems[0]["loc"][inner:])
    message = str(problems[0]["msg"])
    return (f"{field}: {message}", field) if field else (message, None)
