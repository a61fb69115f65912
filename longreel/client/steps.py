"""What a call of the client does, step by step, apart from how bytes travel.

A call is a generator. It yields what shall happen next (``Send``, ``Open``, ``Pause`` and so on),
is sent what came of it, and returns its result; a broken connection is thrown into it as
``LostError``. ``longreel.client.transport`` carries the steps out, for plain code and for asyncio,
so that what is asked, repeated and resumed is written once.
"""

from __future__ import annotations

import json
import random
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol, TypeVar

from longreel.client.errors import APIError

T = TypeVar("T")
Steps = Generator["Step", Any, T]
#: A part of a form: field, then file name, content and content type.
FilePart = tuple[str, tuple[str, bytes | BinaryIO, str]]

#: Seconds between two attempts: first, and at most.
_FIRST_S, _MOST_S = 0.25, 5.0
#: Statuses that say "not now": nothing was done, the same may be asked again.
_LATER = (429, 503)


@dataclass(frozen=True)
class Request:
    """One HTTP request.

    Attributes:
        silence_s: for how long nothing may come before the connection counts as lost; the
            client's own timeout when None.
        repeatable: asking twice does no more than asking once.
    """

    method: str
    path: str
    params: Mapping[str, str | int | float] = field(default_factory=dict)
    json: Any = None
    form: Mapping[str, str] | None = None
    files: Sequence[FilePart] | None = None
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    silence_s: float | None = None
    repeatable: bool = True


@dataclass(frozen=True)
class Reply:
    """A reply; of one that is read piece by piece, ``body`` is empty unless it is an error."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Its JSON.

        Raises:
            APIError: it is none: something else than the service answered.
        """
        try:
            return json.loads(self.body)
        except ValueError:
            said = self.body[:80].decode("utf-8", "replace")
            raise APIError(self.status, "not_json", f"no JSON came, but {said!r}") from None


class LostError(Exception):
    """The connection failed; ``sent`` tells whether the service may have had the request."""

    def __init__(self, reason: str, sent: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.sent = sent


class Turn(Protocol):
    """A lock; taken by ``Take``, given back by the call itself."""

    def acquire(self) -> Any:
        """Wait for it; in an event loop the wait must be awaited."""

    def release(self) -> None:
        """Let the next one in."""


@dataclass(frozen=True)
class Send:
    """Send a request and read its whole ``Reply``."""

    request: Request


@dataclass(frozen=True)
class Open:
    """Send a request and read its ``Reply`` up to the body, which ``Next`` reads."""

    request: Request


@dataclass(frozen=True)
class Next:
    """Read some more bytes of the opened reply; none at its end."""


@dataclass(frozen=True)
class Pause:
    """Wait, before what failed is tried again if ``failure`` says so."""

    seconds: float
    failure: APIError | None = None


@dataclass(frozen=True)
class Take:
    """Wait for a turn."""

    turn: Turn


@dataclass(frozen=True)
class Emit:
    """Hand a value to whoever iterates over the call."""

    value: Any


Step = Send | Open | Next | Pause | Take | Emit


class Backoff:
    """How long to wait before asking again, until patience ends.

    Args:
        patience_s: sum of all pauses, at most.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self.reset()

    def reset(self) -> None:
        """Something worked: patience begins anew."""
        self._left_s = self._patience_s
        self._next_s = _FIRST_S
        self.attempts = 0

    def pause(self, asked_s: float | None = None) -> float | None:
        """Seconds until the next attempt, at least ``asked_s``; None when patience has ended."""
        # Many clients that lost one server shall not come back all at once.
        wait = max(asked_s or 0.0, self._next_s * random.uniform(0.5, 1.0))
        self._next_s = min(2 * self._next_s, _MOST_S)
        if wait > self._left_s:
            return None
        self._left_s -= wait
        self.attempts += 1
        return wait


def later_s(reply: Reply) -> float | None:
    """Seconds that ``Retry-After`` asks for; None where it does not say so in seconds."""
    try:
        return max(0.0, float(reply.headers.get("retry-after", "")))
    except ValueError:
        return None


def refusal(reply: Reply) -> APIError:
    """The error that a reply with a status from 300 on stands for."""
    if reply.status < 400:
        # A key is not sent on to wherever something in between points.
        place = reply.headers.get("location") or "another address"
        said = f"HTTP {reply.status}: the service is not here, but at {place}"
        return APIError(reply.status, "redirected", said)
    try:
        told = json.loads(reply.body)["error"]
        return APIError(reply.status, str(told.get("code") or ""), str(told["message"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        said = " ".join(reply.body[:200].decode("utf-8", "replace").split())
        return APIError(reply.status, "", f"HTTP {reply.status}: {said or 'no reason given'}")


def attempt(step: Send | Open, backoff: Backoff) -> Steps[Reply]:
    """Carry out a request until it is answered for good.

    Repeated are: requests that never left, those that may be repeated, and what the service
    answered with 429 or 503.

    Raises:
        APIError: it was refused, or patience ended.
    """
    while True:
        try:
            reply: Reply = yield step
        except LostError as lost:
            if lost.sent and not step.request.repeatable:
                raise APIError(0, "connection_lost", lost.reason) from None
            failure = APIError(0, "unreachable", lost.reason)
            wait = backoff.pause()
        else:
            if reply.status < 300:
                return reply
            failure = refusal(reply)
            wait = backoff.pause(later_s(reply)) if reply.status in _LATER else None
        if wait is None:
            raise failure
        yield Pause(wait, failure)


def ask(request: Request, patience_s: float) -> Steps[Any]:
    """The JSON that answers a request."""
    reply = yield from attempt(Send(request), Backoff(patience_s))
    return reply.json() if reply.body else None
