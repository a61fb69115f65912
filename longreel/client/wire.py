"""Between steps and httpx: what both kinds of client do alike."""

from __future__ import annotations

import os
from typing import Any

import httpx

from longreel import __version__
from longreel.client.steps import LostError, Reply, Request
from longreel.errors import UsageError

#: Where the service is looked for.
DEFAULT_URL = "http://127.0.0.1:8000"
#: Seconds in which nothing comes before a connection counts as lost: a long video takes minutes.
DEFAULT_TIMEOUT_S = 600.0
#: Seconds that a call goes on trying where the service is away or busy.
DEFAULT_PATIENCE_S = 60.0
_CONNECT_S = 10.0
# Each iteration over events holds a connection: a bound on them would hold up every other call.
_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=20)
_UNSENT = (
    httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol,
)  # fmt: skip


def settings(base_url: str | None, api_key: str | None, timeout_s: float) -> dict[str, Any]:
    """What an httpx client is made with.

    Args:
        base_url: ``LONGREEL_SERVER`` of the environment, else this machine's port 8000 when None.
        api_key: ``LONGREEL_API_KEY`` of the environment, if any, when None.

    Raises:
        UsageError: the address is no http(s) URL, or the key cannot be one.
    """
    url = base_url or os.environ.get("LONGREEL_SERVER") or DEFAULT_URL
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as failure:
        raise UsageError(f"no address of a service: {url!r} ({failure})") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise UsageError(f"no address of a service: {url!r} (http://host:port is meant)")
    headers = {"user-agent": f"longreel/{__version__}"}
    key = api_key if api_key is not None else os.environ.get("LONGREEL_API_KEY")
    if key := (key or "").strip():
        if not (key.isascii() and key.isprintable() and " " not in key):
            # Before a library says what it cannot send.
            raise UsageError("the API key has characters that no key has")
        headers["authorization"] = f"Bearer {key}"
    timeout = _timeout(timeout_s)
    return {"base_url": url, "headers": headers, "timeout": timeout, "limits": _LIMITS}


def built(http: httpx.Client | httpx.AsyncClient, request: Request) -> httpx.Request:
    """A request as httpx sends it.

    Raises:
        UsageError: it holds what cannot be sent: NaN, an infinity, text that is not Unicode.
    """
    try:
        return http.build_request(**_arguments(request))
    except UnicodeEncodeError as failure:
        # The object may be all that is sent.
        near = failure.object[max(0, failure.start - 20) : failure.end + 20]
        raise UsageError(f"not text that can be sent: {near!r}") from None
    except ValueError as failure:
        raise UsageError(f"{request.method} {request.path} cannot be sent: {failure}") from None


def _arguments(request: Request) -> dict[str, Any]:
    """What ``build_request`` of httpx takes."""
    given = {
        "method": request.method,
        "url": request.path,
        "params": dict(request.params),
        "headers": dict(request.headers),
        "json": request.json,
        "data": request.form,
        "files": request.files,
        "content": request.content,
        "timeout": _timeout(request.silence_s) if request.silence_s else None,
    }
    return {key: value for key, value in given.items() if value is not None}


def lost(error: httpx.TransportError, request: Request) -> LostError:
    """What a failed connection means for the call."""
    said = str(error) or type(error).__name__
    try:
        target = error.request.url
        where = f"{target.scheme}://{target.netloc.decode()}"
    except RuntimeError:
        where = "the service"
    unsent = isinstance(error, _UNSENT)
    what = "cannot reach" if unsent else f"{request.method} {request.path} broke off at"
    return LostError(f"{what} {where}: {said}", sent=not unsent)


def reply(response: httpx.Response, body: bytes) -> Reply:
    """A reply as steps read it."""
    return Reply(response.status_code, response.headers, body)


def _timeout(seconds: float) -> httpx.Timeout:
    soon = min(seconds, _CONNECT_S)
    return httpx.Timeout(seconds, connect=soon, pool=soon)
