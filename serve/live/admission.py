"""Which inputs a session takes, and under which numbers: a pure function of what it took before."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from serve.live.items import Frame, Input, Question, Receipt, SessionError

#: Frames that may wait before more are dropped.
MOST_WAITING = 512
#: Of a frame's time, in slots of the session's fps: times that were rounded still hit their slot.
_ROUNDING = 1e-3
#: Outcomes of past inputs that are kept for those who repeat them.
_KEPT = 20_000


@dataclass(frozen=True)
class Admitted:
    """Inputs that were decided about and not yet taken in.

    Attributes:
        receipts: of all inputs, repeated ones included.
        new: the inputs that follow the last number, with their receipts and, of frames, times.
        after: the counters once these are in.
    """

    receipts: list[Receipt]
    new: list[tuple[Input, Receipt, float]]
    after: Counters


@dataclass(frozen=True)
class Counters:
    """What a session took in so far.

    Attributes:
        fps: frames a second that the model sees.
        seq: of the last input.
        frames: accepted.
        time_s: of the last accepted frame.
        outcomes: of the last inputs: a frame's number, ``rate``, ``late``, ``lag``, or ``?`` for a
            question.
    """

    session: str
    fps: float
    seq: int = 0
    frames: int = 0
    time_s: float = -math.inf
    outcomes: tuple[int | str, ...] = field(default=())

    def admit(self, inputs: Sequence[Input], seq: int | None, waiting_frames: int) -> Admitted:
        """Decide about ``inputs``.

        Args:
            seq: number of the first; None goes on after the last.
            waiting_frames: accepted before and not yet seen.

        Raises:
            SessionError: ``sequence_gap`` when numbers between are missing, ``invalid_value``.
        """
        first = self.seq + 1 if seq is None else seq
        if first < 1:
            raise SessionError("invalid_value", f"sequence numbers begin at 1, not {first}")
        if first > self.seq + 1:
            raise SessionError(
                "sequence_gap",
                f"sequence number {first} leaves a gap: the session has {self.seq}",
            )
        receipts, new, now = [], [], self
        full = waiting_frames > MOST_WAITING
        for number, given in enumerate(inputs, first):
            if number <= self.seq:
                receipts.append(self._repeated(number, given))
                continue
            time_s = now.time_of(given)
            outcome = now._outcome(given, time_s, full)
            receipt = receipt_of(self.session, number, outcome)
            new.append((given, receipt, time_s))
            receipts.append(receipt)
            now = now.with_outcome(outcome, time_s)
        return Admitted(receipts, new, now)

    def time_of(self, given: Input) -> float:
        """Seconds of an input in its stream; of a question, those of the last frame.

        Raises:
            SessionError: ``invalid_value``: it is no time.
        """
        if isinstance(given, Question):
            return self.time_s
        if given.time_s is not None:
            if not math.isfinite(given.time_s) or given.time_s < 0:
                raise SessionError(
                    "invalid_value", f"time_s must be 0 or more seconds, not {given.time_s}"
                )
            return given.time_s
        return self.time_s + 1.0 / self.fps if self.frames else 0.0

    def with_outcome(self, outcome: int | str, time_s: float) -> Counters:
        """After one more input."""
        accepted = isinstance(outcome, int)
        return replace(
            self,
            seq=self.seq + 1,
            frames=self.frames + accepted,
            time_s=time_s if accepted else self.time_s,
            outcomes=(*self.outcomes[-_KEPT:], outcome),
        )

    def state(self) -> dict[str, Any]:
        """As plain values."""
        time_s = self.time_s if self.frames else None
        return {
            "fps": self.fps,
            "seq": self.seq,
            "frames": self.frames,
            "time_s": time_s,
            "outcomes": list(self.outcomes),
        }

    @classmethod
    def of(cls, session: str, state: dict[str, Any]) -> Counters:
        """From ``state``."""
        time_s = -math.inf if state["time_s"] is None else state["time_s"]
        outcomes = tuple(state["outcomes"])
        return cls(session, state["fps"], state["seq"], state["frames"], time_s, outcomes)

    def _outcome(self, given: Input, time_s: float, full: bool) -> int | str:
        if isinstance(given, Question):
            return "?"
        if self.frames:
            if time_s <= self.time_s:
                return "late"
            if self._slot(time_s) <= self._slot(self.time_s):
                return "rate"
        return "lag" if full else self.frames

    def _slot(self, time_s: float) -> int:
        return math.floor(time_s * self.fps + _ROUNDING)

    def _repeated(self, number: int, given: Input) -> Receipt:
        back = self.seq - number
        if back >= len(self.outcomes):
            raise SessionError("invalid_value", f"sequence number {number} is too long ago")
        outcome = self.outcomes[-1 - back]
        if (outcome == "?") == isinstance(given, Frame):
            kinds = ("question", "frame") if outcome == "?" else ("frame", "question")
            raise SessionError(
                "invalid_value", f"sequence number {number} was a {kinds[0]}, not a {kinds[1]}"
            )
        return replace(receipt_of(self.session, number, outcome), repeated=True)


def receipt_of(session: str, seq: int, outcome: int | str) -> Receipt:
    """The receipt for an outcome as ``Counters`` keeps it."""
    if isinstance(outcome, int):
        return Receipt(seq, "accepted", frame=outcome)
    if outcome == "?":
        return Receipt(seq, "accepted", response=f"resp-{session}-{seq}")
    return Receipt(seq, "dropped", reason=outcome)  # type: ignore[arg-type]
