"""The calls on sessions, as steps: what is numbered, what is repeated, what is resumed."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from longreel.client import types
from longreel.client.errors import APIError
from longreel.client.sse import EventParser, ServerSentEvent
from longreel.client.steps import (
    Backoff,
    Emit,
    LostError,
    Next,
    Open,
    Pause,
    Request,
    Send,
    Steps,
    Take,
    Turn,
    ask,
    attempt,
)
from longreel.errors import UsageError

#: The service sends a comment every 15 s where it has nothing to tell.
_QUIET_S = 45.0
#: How often numbers are taken anew where another client uses them up.
_RENUMBERED = 5
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
    """A new session with ``options``, or the one of that id as it stands."""
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
    """Hand in frames, each as its bytes and media type."""
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
        for left in reversed(range(_RENUMBERED)):
            seq = yield from _next(numbers, patience_s)
            backoff = Backoff(patience_s)
            try:
                reply = yield from attempt(Send(request(seq)), backoff)
            except APIError as refused:
                if refused.code != "sequence_gap" or not left:
                    raise
                continue
            outcomes = types.frame_outcomes(reply.json())
            # On a first attempt they can only be another client's.
            foreign = not backoff.attempts and any(o.repeated for o in outcomes)
            if not (foreign and all(o.repeated for o in outcomes) and left):
                numbers.last = max([seq - 1, *(o.seq for o in outcomes)])
                return outcomes
        raise AssertionError("the last round returns or raises")
    finally:
        numbers.turn.release()


def _next(numbers: Numbers, patience_s: float) -> Steps[int]:
    """The next number; until its answer is known, only the session knows the one after."""
    last = numbers.last
    if last is None or numbers.shared:
        last = (yield from view(numbers.id, patience_s)).seq
    numbers.last = None
    return last + 1


def respond(
    numbers: Numbers, text: str, max_tokens: int | None, patience_s: float
) -> Steps[types.Response]:
    """Ask a question; its words are emitted as they come, each once."""
    said = _Said()
    backoff = Backoff(patience_s)
    yield Take(numbers.turn)
    try:
        for left in reversed(range(_RENUMBERED)):
            seq = yield from _next(numbers, patience_s)
            question = _question(numbers, text, max_tokens, seq)
            try:
                yield from attempt(question, backoff)
                break
            except APIError as refused:
                if refused.code not in ("sequence_gap", "invalid_value") or not left:
                    raise
                # The number may be another client's; else the question itself is refused.
                if (yield from view(numbers.id, patience_s)).seq == seq - 1:
                    raise
        # The reply begins when the question is durable: others may go on while it is answered.
        numbers.last = seq
    finally:
        numbers.turn.release()
    while True:
        try:
            yield from _read_answer(said, backoff)
        except LostError as lost:
            reason = lost.reason
        else:
            reason = "the answer broke off"
        if said.response is not None:
            return said.response
        wait = backoff.pause()
        if wait is None:
            raise APIError(0, "unreachable", reason)
        yield Pause(wait)
        # Asked under the same number, it is the same question, and its whole answer comes.
        yield from attempt(_resumed(numbers, said) or question, backoff)


def _question(numbers: Numbers, text: str, max_tokens: int | None, seq: int) -> Open:
    body: dict[str, Any] = {"input": text, "stream": True, "seq": seq}
    if max_tokens is not None:
        body["max_output_tokens"] = max_tokens
    return Open(Request("POST", f"{numbers.path}/responses", json=body, silence_s=_QUIET_S))


def _resumed(numbers: Numbers, said: _Said) -> Open | None:
    """The events after the last one that came; None while there was none."""
    return Open(_events_request(numbers.id, said.number, False)) if said.number else None


class _Said:
    """An answer so far, out of the reply to the question or of the session's events."""

    def __init__(self) -> None:
        self.id = ""
        self.seq: int | None = None
        self.number = 0
        self.response: types.Response | None = None

    def take(self, event: ServerSentEvent) -> str:
        """What an event adds to the text.

        Raises:
            APIError: there will be no answer.
        """
        data = json.loads(event.data)
        if event.name == "error" and "error" in data:
            self._refuse(data["error"])
        if event.name == "session.closed":
            raise APIError(410, "session_closed", "the session was closed before it answered")
        if event.name == "response.created" and "id" in data:
            self.id, self.seq = data["id"], data["seq"]
        if event.id:
            if int(event.id) <= self.number:
                return ""
            self.number = int(event.id)
        if self.id not in (data.get("response"), data.get("id")):
            return ""
        if event.name == "response.delta":
            return str(data["delta"])
        if event.name == "response.done":
            # The events name the text otherwise than the reply does.
            text = data["text"] if "text" in data else data["output_text"]
            tokens = data.get("output_tokens", (data.get("usage") or {}).get("output_tokens"))
            self.response = types.Response(text, data["status"], self.id, self.seq, tokens)
        return ""

    def _refuse(self, told: Mapping[str, Any]) -> None:
        if told.get("code") not in ("unavailable", "overloaded"):
            raise APIError(0, str(told.get("code") or ""), str(told.get("message")))


def _read_answer(said: _Said, backoff: Backoff) -> Steps[None]:
    """Read the opened reply until the answer is there or the reply ends."""
    parser = EventParser()
    while piece := (yield Next()):
        for event in parser.feed(piece):
            backoff.reset()
            new = said.take(event)
            if new:
                yield Emit(new)
            if said.response is not None:
                return


def _events_request(session: str, after: int, frames: bool) -> Request:
    return Request(
        "GET",
        f"/v1/sessions/{session}/events",
        params={"after": after, "frames": str(frames).lower()},
        headers={"accept": "text/event-stream", "last-event-id": str(after)},
        silence_s=_QUIET_S,
    )


def events(session: str, after: int, frames: bool, patience_s: float) -> Steps[None]:
    """Emit a session's events above ``after`` until it is closed, across lost connections."""
    backoff = Backoff(patience_s)
    began = False
    while True:
        reason = "the events broke off"
        try:
            yield from attempt(Open(_events_request(session, after, frames)), backoff)
            began = True
            parser = EventParser()
            while piece := (yield Next()):
                backoff.reset()
                for event in parser.feed(piece):
                    number = int(event.id or 0)
                    if number <= after:
                        continue
                    after = number
                    yield Emit(types.Event(number, event.name, json.loads(event.data)))
                    if event.name == "session.closed":
                        return
        except LostError as lost:
            reason = lost.reason
        except APIError as refused:
            # It was closed while the connection was away, and took its events with it.
            if began and refused.code == "session_closed":
                return
            raise
        wait = backoff.pause()
        if wait is None:
            raise APIError(0, "unreachable", reason)
        yield Pause(wait)
