"""What a step of the engine tells."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FrameSeen:
    """A frame is part of the stream, and the model has decided.

    Attributes:
        session: its name.
        frame: index of the frame in its session, from 0.
        p_silence: probability that the model gave to staying silent (0-1).
        speaks: whether a narration begins here.
    """

    session: str
    frame: int
    p_silence: float
    speaks: bool


@dataclass(frozen=True)
class Word:
    """One more token of a narration or answer.

    Attributes:
        frame: where the narration began; None for an answer.
        question: name of the question that is answered; None for a narration.
        token: id in the model's vocabulary.
    """

    session: str
    frame: int | None
    question: str | None
    token: int


@dataclass(frozen=True)
class TurnEnded:
    """A narration or answer is complete, or was cancelled where it stood."""

    session: str
    frame: int | None
    question: str | None
    text: str
    cancelled: bool = False


@dataclass(frozen=True)
class Failed:
    """An input could not be taken in; the session stands where it stood before it.

    Attributes:
        frame: first of the frames that were dropped; None for a question or a turn.
        question: the question that was dropped.
        error: one line.
    """

    session: str
    frame: int | None
    question: str | None
    error: str


Event = FrameSeen | Word | TurnEnded | Failed
