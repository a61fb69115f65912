"""Which request, session and trace a line of a log or a span belongs to."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, TypeVar

_Result = TypeVar("_Result")
#: Of W3C Trace Context: version, trace id, span id, flags.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_NOT_IN_IDS = re.compile(r"[^A-Za-z0-9._-]")
_ABOUT = re.compile(r"/v1/(sessions|jobs)/([A-Za-z0-9._-]{1,128})(?:/|$)")


@dataclass(frozen=True)
class Ids:
    """What a request carries through the service.

    Attributes:
        request: the client's ``X-Request-Id``, or one made here.
        trace, span: of the trace, and of the span that calls; 32 and 16 hex digits. There is no
            span where this service begins the trace.
        sampled: whether whoever began the trace keeps it.
        session, job: what it is about, if anything.
    """

    request: str
    trace: str
    span: str | None = None
    sampled: bool = True
    session: str | None = None
    job: str | None = None


_CURRENT: ContextVar[Ids | None] = ContextVar("longreel_ids", default=None)


def current() -> Ids | None:
    """Those of the request that this code runs for."""
    return _CURRENT.get()


def use(ids: Ids) -> None:
    """They hold from here on, in this task and those that it begins."""
    _CURRENT.set(ids)


@contextmanager
def under(ids: Ids) -> Iterator[None]:
    """They hold within."""
    before = _CURRENT.set(ids)
    try:
        yield
    finally:
        _CURRENT.reset(before)


def of_job(job: str) -> Ids:
    """The ids of a job's run, which begins a trace."""
    return Ids(job, secrets.token_hex(16), job=job)


def of_request(headers: Mapping[bytes, bytes], path: str) -> Ids:
    """The ids of an HTTP request, taken over from its headers where they can be used."""
    given = headers.get(b"x-request-id", b"").decode("latin-1")
    request = _NOT_IN_IDS.sub("", given)[:128] or secrets.token_hex(16)
    found = _TRACEPARENT.fullmatch(headers.get(b"traceparent", b"").decode("latin-1").strip())
    if found and found[1].strip("0") and found[2].strip("0"):
        ids = Ids(request, found[1], found[2], bool(int(found[3], 16) & 1))
    else:
        ids = Ids(request, secrets.token_hex(16))
    if about := _ABOUT.match(path):
        kind, name = about.groups()
        ids = replace(ids, session=name) if kind == "sessions" else replace(ids, job=name)
    return ids


def carried() -> dict[str, Any]:
    """The keyword argument with which a call takes them along; none where there are none."""
    ids = _CURRENT.get()
    return {} if ids is None else {"ids": dict(vars(ids))}


def carrying(
    call: Callable[..., Coroutine[Any, Any, _Result]],
) -> Callable[..., Coroutine[Any, Any, _Result]]:
    """A method that takes what ``carried`` gave, and goes on under these ids."""

    @wraps(call)
    async def under(*args: Any, ids: dict[str, Any] | None = None, **kwargs: Any) -> _Result:
        if ids is not None:
            use(Ids(**ids))
        return await call(*args, **kwargs)

    return under
