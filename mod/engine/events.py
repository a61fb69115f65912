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
        frame: that was dropped, or where the narration that ended began; None for a question.
        question: the question that was dropped.
        error: one line.
    """

    session: str
    frame: int | None
    question: str | None
    error: str


Event = FrameSeen | Word | TurnEnded | Failed


@dataclass(frozen=True)
class FrameOutcome:
    """What the model decided at one frame.

    Attributes:
        p_silence: probability it gave to staying silent, 0-1.
        text: its narration, or None for silence.
    """

    p_silence: float
    text: str | None


class Collector:
    """What became of one input, gathered from its session's events.

    Args:
        n_frames: how many were given; None for a question.

    Attributes:
        outcomes: of the frames; answer: to the question, of so many tokens (``n_words``).
        error: why the input could not be taken in.
    """

    def __init__(self, n_frames: int | None = None) -> None:
        self.outcomes: list[FrameOutcome] = []
        self.answer = ""
        self.n_words = 0
        self.error: str | None = None
        self._n_frames = n_frames

    def take(self, event: Event) -> bool:
        """Note ``event``; whether the input is done with."""
        match event:
            case Failed(error=error):
                self.error = error
                return True
            case FrameSeen(p_silence=p, speaks=speaks):
                self.outcomes.append(FrameOutcome(p, "" if speaks else None))
                return not speaks and len(self.outcomes) == self._n_frames
            case TurnEnded(question=None, text=text):
                self.outcomes[-1] = FrameOutcome(self.outcomes[-1].p_silence, text)
                return len(self.outcomes) == self._n_frames
            case TurnEnded(text=text):
                self.answer = text
                return True
            case Word():
                self.n_words += 1
                return False
