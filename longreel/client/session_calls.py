"""The calls on sessions, as steps: what is numbered, what is repeated, what is resumed."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from longreel.client import types
from longreel.client.errors import APIError
from longreel.client.steps import (
    Backoff,
    Request,
    Send,
    Steps,
    Take,
    Turn,
    ask,
    attempt,
)
from longreel.errors import UsageError

#: How often numbers are taken anew where another client uses them up.
RENUMBERED = 5
_GONE = ("session_closed", "session_not_found")


@dataclass
class Numbers:
    """Where the numbering of a session stands on this side.

    Attributes:
        turn: held by whoever has a number that is not answered yet, so that they go out in order.
        shared: other clients may use numbers, so the session is asked for the next one each time.
        last: last number that the session answered; None when only the session knows.
    """

    id: str
    turn: Turn
    shared: bool
    last: int | None = None

    @property
    def path(self) -> str:
        """Of the session."""
        return f"/v1/sessions/{self.id}"


def opened(
    session: str | None, options: Mapping[str, Any], patience_s: float
) -> Steps[types.SessionInfo]:
    """A new session with ``options``, or the one of that id as it stands.

    Raises:
        UsageError: options are given for a session that is open.
        APIError: the service refuses it, or is away for longer than ``patience_s`` seconds.
    """
    given = {key: value for key, value in options.items() if value is not None}
    if session is not None:
        if given:
            raise UsageError(f"session {session!r} is open: {', '.join(given)} cannot be set")
        return (yield from view(session, patience_s))
    # Named here: an attempt whose reply was lost is recognised, and no second session opened.
    name = f"session-{uuid.uuid4().hex}"
    if isinstance(given.get("memory"), str):
        given["memory"] = {"policy": given["memory"]}
    backoff = Backoff(patience_s)
    request = Request("POST", "/v1/sessions", json={"id": name, **given})
    try:
        reply = yield from attempt(Send(request), backoff)
    except APIError as refused:
        if not backoff.attempts or refused.status not in (400, 409, 422):
            raise
        try:
            return (yield from view(name, patience_s))
        except APIError:
            raise refused from None
    return types.session_info(reply.json())


def view(session: str, patience_s: float) -> Steps[types.SessionInfo]:
    """How a session stands."""
    told = yield from ask(Request("GET", f"/v1/sessions/{session}"), patience_s)
    return types.session_info(told)


def sessions(patience_s: float) -> Steps[list[types.SessionInfo]]:
    """All that are not closed."""
    told = yield from ask(Request("GET", "/v1/sessions"), patience_s)
    return [types.session_info(one) for one in told["data"]]


def close(session: str, patience_s: float) -> Steps[None]:
    """End a session; one that is closed already stays so."""
    try:
        yield from ask(Request("DELETE", f"/v1/sessions/{session}"), patience_s)
    except APIError as refused:
        if refused.code not in _GONE:
            raise


def left(session: str, patience_s: float, quiet: bool) -> Steps[None]:
    """``close`` at the end of a block; ``quiet`` where something else went wrong already."""
    try:
        yield from close(session, patience_s)
    except APIError:
        if not quiet:
            raise


def cancel(session: str, response: str | None, patience_s: float) -> Steps[bool]:
    """End what is being said; whether there was anything to end."""
    place = f"/responses/{response}" if response else ""
    told = yield from ask(Request("POST", f"/v1/sessions/{session}{place}/cancel"), patience_s)
    return bool(told.get("cancelled"))


def push(
    numbers: Numbers,
    pictures: Sequence[tuple[bytes, str]],
    times_s: Sequence[float] | None,
    wait: bool,
    patience_s: float,
) -> Steps[list[types.FrameOutcome]]:
    """Hand in frames, each as its bytes and media type.

    Raises:
        UsageError: there are not as many times as pictures.
        APIError: the service refuses them, or is away for longer than ``patience_s`` seconds.
    """
    if times_s is not None and len(times_s) != len(pictures):
        raise UsageError(f"{len(pictures)} frames with {len(times_s)} times")
    if not pictures:
        return []
    parts = [("frames", (f"{n}", data, kind)) for n, (data, kind) in enumerate(pictures)]
    form = {} if times_s is None else {"times": json.dumps(list(times_s))}

    def request(seq: int) -> Request:
        return Request(
            "POST",
            f"{numbers.path}/frames",
            params={"wait": str(wait).lower()},
            form={**form, "seq": str(seq)},
            files=parts,
        )

    return (yield from _numbered(numbers, request, patience_s))


def push_video(
    numbers: Numbers,
    piece: tuple[bytes, str],
    time_s: float | None,
    wait: bool,
    patience_s: float,
) -> Steps[list[types.FrameOutcome]]:
    """Hand in an encoded piece of video, which the service samples."""
    data, kind = piece
    at = {} if time_s is None else {"time_s": time_s}

    def request(seq: int) -> Request:
        return Request(
            "POST",
            f"{numbers.path}/frames",
            params={"seq": seq, "wait": str(wait).lower(), **at},
            content=data,
            headers={"content-type": kind},
        )

    return (yield from _numbered(numbers, request, patience_s))


def in_order(
    pictures: Any, time_s: float | Sequence[float] | None
) -> tuple[list[Any], list[float] | None]:
    """One or several pictures, and one or several times, as lists."""
    several = isinstance(pictures, list | tuple)
    given = list(pictures) if several else [pictures]
    if time_s is None:
        return given, None
    return given, [float(time_s)] if isinstance(time_s, int | float) else list(time_s)


def _numbered(numbers: Numbers, request: Any, patience_s: float) -> Steps[list[types.FrameOutcome]]:
    """Send ``request(seq)`` in its turn, under numbers that nobody else used."""
    yield Take(numbers.turn)
    try:
        for left in reversed(range(RENUMBERED)):
            seq = yield from next_number(numbers, patience_s)
            backoff = Backoff(patience_s)
            try:
                reply = yield from attempt(Send(request(seq)), backoff)
            except APIError as refused:
                if refused.code != "sequence_gap" or not left:
                    raise
                continue
            outcomes = types.frame_outcomes(reply.json())
            if not backoff.attempts:
                # What was there before a first attempt can only be another client's.
                if left and outcomes and all(o.repeated for o in outcomes):
                    continue
                outcomes = [_not_ours(o) if o.repeated else o for o in outcomes]
            numbers.last = max([seq - 1, *(o.seq for o in outcomes)])
            return outcomes
        raise AssertionError("the last round returns or raises")
    finally:
        numbers.turn.release()


def _not_ours(outcome: types.FrameOutcome) -> types.FrameOutcome:
    """Of a frame whose number another client had used: later frames are in, so it is late now."""
    return types.FrameOutcome(outcome.seq, accepted=False, reason="taken")


def next_number(numbers: Numbers, patience_s: float) -> Steps[int]:
    """The next number; until its answer is known, only the session knows the one after."""
    last = numbers.last
    if last is None or numbers.shared:
        last = (yield from view(numbers.id, patience_s)).seq
    numbers.last = None
    return last + 1
