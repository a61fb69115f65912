"""The protocol of a session's WebSocket, apart from the socket: messages in, messages out.

Nothing here awaits; ``serve.routes.connection`` moves the messages and calls the session.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from serve.keys.usage import QuotaError
from serve.live.items import Frame, Question, Receipt, SessionError, SessionEvent
from serve.routes.bodies import MOST_JSON_BYTES, Sent, is_time
from serve.routes.errors import first_problem
from serve.routes.schemas import Ask

#: What the server says: an object with a ``type``.
Said = dict[str, Any]


@dataclass(frozen=True)
class Give:
    """A picture or an encoded piece of video, to be given to the session."""

    sent: Sent


@dataclass(frozen=True)
class Put:
    """A question to be given to the session."""

    question: Question
    seq: int | None


@dataclass(frozen=True)
class Cancel:
    """End what is being said, or the answer ``response``."""

    response: str | None


@dataclass(frozen=True)
class Close:
    """End the session after what was sent before."""


@dataclass(frozen=True)
class Reply:
    """A message that is answered by itself."""

    said: Said


Order = Give | Put | Cancel | Close | Reply


class Conversation:
    """One connection: what its messages ask for, what it is told, and the counts at its end.

    Args:
        frames: tell ``frame.seen``, too.
        most_bytes: bound on one binary message.
    """

    def __init__(self, frames: bool, most_bytes: int) -> None:
        self._frames, self._most_bytes = frames, most_bytes
        self._described: tuple[int | None, float | None] | SessionError | None = None
        self._counts = {"accepted": 0, "dropped": 0, "narrations": 0, "responses": 0}

    def hear(self, message: str | bytes) -> Order | None:
        """What a message asks for; None for one that only describes the next."""
        try:
            return self._frame(message) if isinstance(message, bytes) else self._text(message)
        except SessionError as error:
            return Reply(refused(error))

    def _frame(self, data: bytes) -> Order:
        described, self._described = self._described, None
        if isinstance(described, SessionError):
            raise SessionError("invalid_frame", "not taken in: its description was refused")
        seq, time_s = described or (None, None)
        if len(data) > self._most_bytes:
            error = SessionError(
                "media_too_large", f"the message is larger than {self._most_bytes} bytes"
            )
            return Reply(refused(error, seq))
        if not data:
            return Reply(refused(SessionError("invalid_frame", "the message is empty"), seq))
        return Give(Sent([data], [time_s], seq))

    def _text(self, text: str) -> Order | None:
        message = _object(text)
        match message.pop("type", None):
            case "frame":
                self._describe(message)
                return None
            case "response.create":
                asked = _asked(message)
                return Put(Question(asked.input, asked.max_output_tokens), asked.seq)
            case "response.cancel":
                response = message.get("response")
                if response is not None and not isinstance(response, str):
                    raise SessionError("invalid_value", "response must be the id of an answer")
                return Cancel(response)
            case "session.close":
                return Close()
            case "ping":
                return Reply({"type": "pong"})
            case other:
                raise SessionError("invalid_value", f"there is no message of type {other!r:.60}")

    def _describe(self, message: Mapping[str, Any]) -> None:
        earlier = self._described
        seq, time_s = message.get("seq"), message.get("time_s")
        problem = None
        if seq is not None and not (type(seq) is int and 0 < seq < 2**53):
            problem = SessionError("invalid_value", f"seq must be a number from 1, not {seq!r:.40}")
        elif time_s is not None and not is_time(time_s):
            problem = SessionError("invalid_value", f"time_s must be seconds, not {time_s!r:.40}")
        # Kept although it is refused: its frame would otherwise be taken in at a wrong place.
        self._described = problem or (seq, time_s)
        if problem:
            raise problem
        if earlier is not None:
            raise SessionError("invalid_value", "a frame was described twice; the last one counts")

    def answered(self, frame: Frame, receipt: Receipt) -> Said:
        """What is said of a frame that got ``receipt``."""
        self._counts[receipt.outcome] += 1
        if receipt.outcome == "dropped":
            return {"type": "frame.dropped", "seq": receipt.seq, "reason": receipt.reason}
        said = {"type": "frame.accepted", "seq": receipt.seq, "frame": receipt.frame}
        if frame.time_s is not None:
            said["time_s"] = frame.time_s
        return {**said, "repeated": receipt.repeated}

    def not_taken(self, error: SessionError, seq: int | None) -> Said:
        """What is said of a frame that was refused.

        One without a number that is beyond its key's quota is gone, like any that is dropped. A
        number stays free, and is asked for again; so a frame that has one may be sent again.
        """
        if error.code == "quota_exceeded" and seq is None:
            self._counts["dropped"] += 1
            return {"type": "frame.dropped", "seq": None, "reason": "quota"}
        return refused(error, seq)

    def told(self, event: SessionEvent) -> Said | None:
        """What is said of an event; ``number`` is for the ``after`` of one who comes back."""
        if event.type == "frame.seen" and not self._frames:
            return None
        if event.type == "narration":
            self._counts["narrations"] += 1
        elif event.type == "response.done":
            self._counts["responses"] += 1
        return {"type": event.type, "number": event.number, **event.data}

    def stats(self) -> Said:
        """What happened on this connection."""
        return {
            "type": "session.stats",
            "frames_accepted": self._counts["accepted"],
            "frames_dropped": self._counts["dropped"],
            "narrations": self._counts["narrations"],
            "responses": self._counts["responses"],
        }


def refused(error: SessionError, seq: int | None = None) -> Said:
    """What is said of what could not be done; ``seq`` is that of its frame or question."""
    said: Said = {"type": "error", "code": error.code, "message": error.message}
    if isinstance(error, QuotaError) and error.retry_after_s is not None:
        said["retry_after_s"] = round(error.retry_after_s, 3)
    return said if seq is None else {**said, "seq": seq}


def accepted(receipt: Receipt) -> Said:
    """What is said of a question that is durable."""
    return {
        "type": "response.accepted",
        "seq": receipt.seq,
        "response": receipt.response,
        "repeated": receipt.repeated,
    }


@dataclass(frozen=True)
class Item:
    """A decoded frame on its way into the session, or what is wrong with it."""

    given: Frame | SessionError
    seq: int | None


def runs(items: Sequence[Item]) -> list[list[Item]]:
    """``items`` in stretches that one call can give: numbers follow on, and no error within."""
    found: list[list[Item]] = []
    follows: int | None = None  # the number that goes on with the last stretch, where it has some
    for item in items:
        alone = isinstance(item.given, SessionError)
        joins = bool(found) and not alone and not isinstance(found[-1][-1].given, SessionError)
        if joins and item.seq in (None, follows):
            found[-1].append(item)
            follows = None if follows is None else follows + 1
        else:
            found.append([item])
            follows = None if item.seq is None else item.seq + 1
    return found


def _object(text: str) -> dict[str, Any]:
    if len(text) > MOST_JSON_BYTES:
        raise SessionError("invalid_value", f"a text message is at most {MOST_JSON_BYTES} long")
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        raise SessionError("invalid_value", "the message is not JSON") from None
    if not isinstance(message, dict):
        raise SessionError("invalid_value", "a message is a JSON object with a type")
    return message


def _asked(message: Mapping[str, Any]) -> Ask:
    try:
        return Ask.model_validate(message)
    except ValidationError as error:
        raise SessionError("invalid_value", first_problem(error.errors())[0]) from None
