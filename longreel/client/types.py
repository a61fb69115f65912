"""What the service answers, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class FrameOutcome:
    """What became of one frame.

    Attributes:
        seq: its sequence number in the session.
        accepted: it is durable and is, or will be, seen; else it was dropped.
        reason: why it was dropped: ``rate`` (faster than the session's fps), ``late`` (not after
            the frame before), ``lag`` (too many wait) or ``taken`` (another client used its number
            amid a push of several).
        frame: its number in the session, from 0.
        time_s: where it stands in the stream, in seconds.
        p_silence: how sure the model was to say nothing (0-1).
        narration: what the model said at it; None where it kept silent.
        repeated: the session had it already, from an attempt whose reply was lost.

    ``time_s``, ``p_silence`` and ``narration`` are None where the push did not wait for them.
    """

    seq: int
    accepted: bool
    reason: str | None = None
    frame: int | None = None
    time_s: float | None = None
    p_silence: float | None = None
    narration: str | None = None
    repeated: bool = False


@dataclass(frozen=True)
class Response:
    """An answer in a session; ``status``: ``completed``, ``length``, ``cancelled``, ``failed``."""

    text: str
    status: str
    id: str
    seq: int | None = None
    output_tokens: int | None = None


@dataclass(frozen=True)
class Event:
    """One thing that happened in a session; ``number`` counts from 1 without gaps."""

    number: int
    type: str
    data: Mapping[str, Any]


@dataclass(frozen=True)
class SessionInfo:
    """How a session stands.

    Attributes:
        state: ``live``, ``idle``, ``recovering`` or ``closed``.
        options: how it watches, as the service spells it.
        seq: last sequence number that it answered.
        frames: accepted so far; ``waiting_frames`` of them are not seen yet.
        last_event: number of its last event.
        replica, epoch: who holds it, and how often that changed.
        created: seconds since 1970.
    """

    id: str
    state: str
    options: Mapping[str, Any]
    seq: int
    frames: int
    waiting_frames: int
    last_event: int
    replica: str | None
    epoch: int
    created: float


@dataclass(frozen=True)
class Answer:
    """An answer about a video; ``finish_reason`` is ``stop`` or ``length``."""

    text: str
    finish_reason: str | None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    vision_tokens: int | None = None


@dataclass(frozen=True)
class Model:
    """A model that the service holds; ``data`` is everything that it says of it."""

    id: str
    fps: float | None
    data: Mapping[str, Any]


@dataclass(frozen=True)
class File:
    """An uploaded file; ``bytes`` is its size."""

    id: str
    filename: str
    bytes: int
    created_at: float


@dataclass(frozen=True)
class Job:
    """A bulk job; ``data`` is everything that the service says of it.

    ``status``: ``pending``, ``running``, ``succeeded``, ``partial`` (some videos failed, their
    rows say why), ``failed`` or ``cancelled``.
    """

    id: str
    status: str
    data: Mapping[str, Any]


@dataclass(frozen=True)
class Stream:
    """A live source that the service pulls.

    Attributes:
        session: id of the session that follows it.
        state: ``starting``, ``running``, ``reconnecting``, ``ended`` or ``failed``.
        error: why it failed.
        frames: handed to the session so far.
    """

    id: str
    session: str
    state: str
    url: str
    error: str | None
    frames: int


def session_info(told: Mapping[str, Any]) -> SessionInfo:
    """A session object of the API."""
    return SessionInfo(
        id=told["id"],
        state=told["state"],
        options=told.get("options") or {},
        seq=told["seq"],
        frames=told["frames"],
        waiting_frames=told["waiting_frames"],
        last_event=told["last_event"],
        replica=told.get("replica"),
        epoch=told.get("epoch", 0),
        created=told.get("created", 0.0),
    )


def frame_outcomes(told: Mapping[str, Any]) -> list[FrameOutcome]:
    """The reply to pushed frames: each receipt, with what the model made of its frame."""
    seen = {outcome["frame"]: outcome for outcome in told.get("outcomes") or ()}
    found = []
    for receipt in told["receipts"]:
        outcome = seen.get(receipt.get("frame"), {})
        found.append(
            FrameOutcome(
                seq=receipt["seq"],
                accepted=receipt["outcome"] == "accepted",
                reason=receipt.get("reason"),
                frame=receipt.get("frame"),
                time_s=outcome.get("time_s"),
                p_silence=outcome.get("p_silence"),
                narration=outcome.get("narration"),
                repeated=bool(receipt.get("repeated")),
            )
        )
    return found


def answer(told: Mapping[str, Any]) -> Answer:
    """A ``chat.completion`` object."""
    choice = told["choices"][0]
    return counted(choice["message"]["content"] or "", choice.get("finish_reason"), told)


def counted(text: str, finish_reason: str | None, told: Mapping[str, Any]) -> Answer:
    """An answer with the ``usage`` of a reply, where it has one."""
    usage = told.get("usage") or {}
    return Answer(
        text=text,
        finish_reason=finish_reason,
        prompt_tokens=usage.get("prompt_tokens"),
        completion_tokens=usage.get("completion_tokens"),
        vision_tokens=(usage.get("prompt_tokens_details") or {}).get("vision_tokens"),
    )


def model(told: Mapping[str, Any]) -> Model:
    """A model object of the API."""
    return Model(id=told["id"], fps=told.get("fps"), data=told)


def file(told: Mapping[str, Any]) -> File:
    """A file object of the API."""
    return File(told["id"], told["filename"], told["bytes"], told["created_at"])


def job(told: Mapping[str, Any]) -> Job:
    """A job object of the API."""
    return Job(told["id"], told["status"], told)


def stream(told: Mapping[str, Any]) -> Stream:
    """A stream object of the API."""
    return Stream(
        id=told["id"],
        session=told["session"],
        state=told["state"],
        url=told["url"],
        error=told.get("error"),
        frames=told.get("frames") or 0,
    )
