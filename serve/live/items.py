"""What a session is given, and how an input is answered; plain values that travel between
processes and into the durable log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

#: Pixels as the model takes them, (side, side, 3) RGB.
Pixels = NDArray[np.uint8]
#: Of a question or an instruction. One that looks back is read in one step of the engine, for which
#: everybody waits.
MOST_CHARACTERS = 4096
#: How long readers hear that a session was closed, and not that there is none, in seconds.
CLOSED_S = 30.0


@dataclass(frozen=True)
class SessionOptions:
    """How a session watches; fixed when it opens.

    Attributes:
        instruction: opens the stream; the checkpoint's own when None.
        fps: frames a second that the model sees; the checkpoint's own when None. Of frames that
            come faster, those between are dropped and said to be.
        silence_threshold: probability (0-1) that silence must reach for the model to stay silent.
        memory: ``full``, ``window`` or ``retrieve``: what it remembers (``docs/engine.md``).
        memory_frames: of the window; a multiple of 32.
        max_tokens: bound on one narration or answer.
        durable: whether it outlives its replica. A chat about one video does not need to.
        kind: ``live`` goes before ``bulk`` in every step.
        asked: whether a model that has to be asked in order to narrate is asked.
        frames: how many will come, where that is known.
        owner: id of the API key that it belongs to; None where keys are off.
        kept: whether it can be asked which vision tokens the router kept of its last frames.
    """

    instruction: str | None = None
    fps: float | None = None
    silence_threshold: float = 0.0
    memory: Literal["full", "window", "retrieve"] = "window"
    memory_frames: int = 256
    max_tokens: int = 96
    durable: bool = True
    kind: Literal["live", "bulk"] = "live"
    asked: bool = True
    frames: int | None = None
    owner: str | None = None
    kept: bool = False

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> SessionOptions:
        """Those that a manifest has, beside what else it has."""
        return cls(**{k: v for k, v in kept.items() if k in cls.__dataclass_fields__})


@dataclass(frozen=True)
class Frame:
    """A frame at ``time_s`` of its stream; None stands one frame after the last."""

    pixels: Pixels
    time_s: float | None = None


@dataclass(frozen=True)
class Question:
    """A question after all frames given before it."""

    text: str
    max_tokens: int | None = None


Input = Frame | Question


@dataclass(frozen=True)
class Receipt:
    """How one input was answered.

    Attributes:
        seq: its sequence number in the session, from 1.
        outcome: ``accepted``: it is durable and will be taken in; ``dropped``: it will not be.
        reason: why it was dropped: ``rate`` (between two frames of the session's fps), ``late``
            (not after the last frame), ``lag`` (too many frames wait).
        frame: number of an accepted frame in its session, from 0.
        response: id of the answer to a question.
        repeated: the session had this sequence number already; nothing was done again.
        event: number of the session's last event before; what it leads to is told after that.
            0 of one that was repeated: it may have been told long ago.
    """

    seq: int
    outcome: Literal["accepted", "dropped"]
    reason: Literal["rate", "late", "lag"] | None = None
    frame: int | None = None
    response: str | None = None
    repeated: bool = False
    event: int = 0


@dataclass(frozen=True)
class SessionEvent:
    """One thing that happened in a session; the same after any recovery.

    Attributes:
        number: from 1, without gaps.
        type: and what ``data`` holds:
            ``frame.seen``: frame, time_s, p_silence (0-1), speaks;
            ``narration.delta``: frame, time_s, delta;
            ``narration``: frame, time_s, text, cancelled;
            ``response.created``: response, seq;
            ``response.delta``: response, delta;
            ``response.done``: response, text, status (``completed``, ``length``, ``cancelled``,
            ``failed``), output_tokens;
            ``error``: code, message, and frame or response;
            ``session.closed``: nothing.
    """

    number: int
    type: str
    data: dict[str, Any]


@dataclass(frozen=True)
class SessionView:
    """A session from outside.

    Attributes:
        state: ``live`` (in a replica's memory), ``idle`` (in the state store alone),
            ``recovering`` (its replica was lost), ``closed``.
        seq: last sequence number that was accepted.
        frames: accepted so far; ``waiting_frames`` of them are not seen yet.
        events: last event's number.
        replica, epoch: who owns it, and how often it was assigned.
        created: seconds since 1970.
    """

    id: str
    state: Literal["live", "idle", "recovering", "closed"]
    options: SessionOptions
    seq: int
    frames: int
    waiting_frames: int
    events: int
    replica: str | None
    epoch: int
    created: float


@dataclass(frozen=True)
class Kept:
    """What the router kept of one frame.

    Attributes:
        rows, columns: of its vision tokens, as they lie in the picture.
        layers: that route; all others run every token.
        counts: of each token, row by row, in how many of ``layers`` it ran.
    """

    frame: int
    rows: int
    columns: int
    layers: int
    counts: list[int]


class SessionError(Exception):
    """An input or call that a session cannot take; nothing was done.

    ``code`` is for programs, one of those for which ``serve.routes.errors.STATUS`` has a status.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class Refusal:
    """Why a call was not done. ``stale``: this replica does not own the session, look it up anew.

    Other codes are those of ``SessionError``.
    """

    code: str
    message: str = ""
