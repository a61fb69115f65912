"""Questions in a session and the events it tells, as steps; both outlive their connection."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from longreel.client import types
from longreel.client.errors import APIError
from longreel.client.session_calls import RENUMBERED, Numbers, next_number, view
from longreel.client.sse import EventParser, ServerSentEvent
from longreel.client.steps import (
    Backoff,
    Emit,
    LostError,
    Next,
    Open,
    Pause,
    Request,
    Steps,
    Take,
    attempt,
)

#: The service sends a comment every 15 s where it has nothing to tell.
_QUIET_S = 45.0


def respond(
    numbers: Numbers, text: str, max_tokens: int | None, patience_s: float
) -> Steps[types.Response]:
    """Ask a question; its words are emitted as they come, each once."""
    backoff = Backoff(patience_s)
    while True:
        question = yield from _asked(numbers, text, max_tokens, patience_s, backoff)
        try:
            return (yield from _answered(numbers, question, backoff))
        except _TakenError:
            numbers.last = None


def _asked(
    numbers: Numbers, text: str, max_tokens: int | None, patience_s: float, backoff: Backoff
) -> Steps[Open]:
    """Ask in turn, until a reply begins; what was sent."""
    yield Take(numbers.turn)
    try:
        for left in reversed(range(RENUMBERED)):
            seq = yield from next_number(numbers, patience_s)
            question = _question(numbers, text, max_tokens, seq)
            backoff.reset()
            try:
                yield from attempt(question, backoff)
            except APIError as refused:
                if refused.code not in ("sequence_gap", "invalid_value") or not left:
                    raise
                # The number may be another client's; else the question itself is refused.
                if (yield from view(numbers.id, patience_s)).seq == seq - 1:
                    raise
                continue
            # The reply begins when the question is durable: others may go on meanwhile.
            numbers.last = seq
            return question
        raise AssertionError("the last round returns or raises")
    finally:
        numbers.turn.release()


def _answered(numbers: Numbers, question: Open, backoff: Backoff) -> Steps[types.Response]:
    """Read the opened reply, and what follows it where it breaks off, to the answer's end.

    Raises:
        _TakenError: it answers another client's question.
    """
    said = _Said(first_attempt=not backoff.attempts)
    while True:
        try:
            yield from _read_answer(said, backoff)
        except LostError as lost:
            reason = lost.reason
        else:
            reason = "the answer broke off"
        if said.response is not None:
            return said.response
        said.broke_off()
        failure = APIError(0, "unreachable", reason)
        wait = backoff.pause()
        if wait is None:
            raise failure
        yield Pause(wait, failure)
        # Asked under the same number, it is the same question, and its whole answer comes.
        yield from attempt(_resumed(numbers, said) or question, backoff)


class _TakenError(Exception):
    """The number was taken by another client's question."""


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

    def __init__(self, first_attempt: bool) -> None:
        self._first_attempt = first_attempt
        self.id = ""
        self.seq: int | None = None
        self.number = 0
        self.response: types.Response | None = None

    def broke_off(self) -> None:
        """A reply ended too early; what is asked now was asked before."""
        self._first_attempt = False

    def take(self, event: ServerSentEvent) -> str:
        """What an event adds to the text.

        Raises:
            APIError: there will be no answer.
            _TakenError: it is another client's.
        """
        data = json.loads(event.data)
        if event.name == "error" and "error" in data:
            self._refuse(data["error"])
        if event.name == "session.closed":
            raise APIError(410, "session_closed", "the session was closed before it answered")
        if event.name == "response.created" and "id" in data:
            # On a first attempt it can only be another's that was there before.
            if data.get("repeated") and self._first_attempt:
                raise _TakenError
            self._first_attempt = False
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
    """Emit a session's events above ``after`` until it is closed, across lost connections.

    Raises:
        APIError: the service refuses it, or is away for longer than ``patience_s`` seconds.
    """
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
        failure = APIError(0, "unreachable", reason)
        wait = backoff.pause()
        if wait is None:
            raise failure
        yield Pause(wait, failure)
