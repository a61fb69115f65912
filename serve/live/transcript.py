"""What a session tells: the engine's events as numbered events of the API.

Numbers and contents follow from the inputs alone, so a session that was rebuilt tells the same
again, and a reader goes on after the last number it has.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mod.engine.events import Event, Failed, FrameSeen, TurnEnded, Word
from serve.live.items import SessionEvent

#: Events kept for readers that come late; the oldest go first.
KEPT = 50_000
#: Stands for bytes that are no whole character yet.
_PARTIAL = "\ufffd"


@dataclass
class _Turn:
    """A turn in progress: its tokens, and the text that was told of them."""

    ids: list[int] = field(default_factory=list)
    told: str = ""


@dataclass
class _Expected:
    """An accepted input that is not dealt with yet; ``response`` of a question."""

    seq: int
    response: str | None
    since: float
    most: int | None = None
    withdrawn: bool = False


class Watcher:
    """Hears how long inputs took; this one does nothing with it.

    ``since`` is what ``Transcript`` was told when the input was expected.
    """

    def seen(self, seq: int, since: float) -> None:
        """The model has seen a frame."""

    def narrated(self, seq: int) -> None:
        """It has narrated one."""

    def began(self, seq: int, since: float) -> None:
        """The first word of an answer came."""

    def answered(self, seq: int, since: float, status: str) -> None:
        """An answer has ended, as ``response.done`` says."""


@dataclass
class Transcript:
    """The events of one session.

    Args:
        decode: token ids to text.
        most: tokens at which a turn is cut off.

    Attributes:
        events: the last ``KEPT``; ``last`` is the number of the newest.
        times: seconds of each accepted frame.
        watcher: hears of what is dealt with.
    """

    decode: Callable[[Sequence[int]], str]
    most: int
    events: list[SessionEvent] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    last: int = 0
    watcher: Watcher = field(default_factory=Watcher)
    _turn: _Turn | None = None
    _expected: deque[_Expected] = field(default_factory=deque)

    @property
    def waiting(self) -> int:
        """Accepted inputs that are not dealt with yet."""
        return len(self._expected)

    @property
    def waiting_frames(self) -> int:
        """Frames among them."""
        return sum(one.response is None for one in self._expected)

    def waits_for(self, seq: int) -> bool:
        """Whether an input up to ``seq`` is not dealt with yet."""
        return bool(self._expected) and self._expected[0].seq <= seq

    def after(self, number: int, most: int = 1000) -> list[SessionEvent]:
        """The first events with numbers above ``number``."""
        if not self.events:
            return []
        start = max(0, number + 1 - self.events[0].number)
        return self.events[start : start + most]

    @property
    def waiting_since(self) -> float | None:
        """When the oldest input that waits was accepted."""
        return self._expected[0].since if self._expected else None

    def expect_frame(self, seq: int, time_s: float, since: float) -> None:
        """A frame was accepted at ``since``, on any clock."""
        self.times.append(time_s)
        self._expected.append(_Expected(seq, None, since))

    def expect_answer(self, seq: int, response: str, most: int | None, since: float) -> None:
        """A question was accepted, whose answer is cut off at ``most`` tokens."""
        self._expected.append(_Expected(seq, response, since, most))

    def withdraw(self, response: str) -> None:
        """A question was taken back before its answer began; told where its turn would come."""
        for one in self._expected:
            one.withdrawn |= one.response == response
        self._tell_withdrawn()

    def closed(self) -> None:
        """Nothing more comes."""
        self._tell("session.closed")

    def take(self, happened: Iterable[Event]) -> None:
        """Note what the engine told."""
        for event in happened:
            match event:
                case FrameSeen(frame=frame, p_silence=p, speaks=speaks):
                    self.watcher.seen(self._expected[0].seq, self._expected[0].since)
                    self._tell(
                        "frame.seen",
                        frame=frame,
                        time_s=self.times[frame],
                        p_silence=p,
                        speaks=speaks,
                    )
                    if not speaks:
                        self._dealt_with()
                case Word():
                    self._word(event)
                case TurnEnded():
                    self._ended(event)
                case Failed():
                    self._failed(event)

    def state(self) -> dict[str, Any]:
        """All of it as it is now, while nothing is waiting; for ``serve.live.packed``."""
        return {"events": self.events.copy(), "last": self.last, "times": self.times.copy()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from ``state``."""
        self.events = [SessionEvent(**fields) for fields in state["events"]]
        self.last, self.times = state["last"], list(state["times"])

    def _dealt_with(self) -> None:
        self._expected.popleft()
        self._tell_withdrawn()

    def _tell_withdrawn(self) -> None:
        while self._expected and self._expected[0].withdrawn:
            response = self._expected[0].response
            assert response is not None
            self._created(response)
            self._done(response, "", "cancelled", 0)
            self._expected.popleft()

    def _begin(self, response: str | None) -> _Turn:
        if self._turn is None:
            self._turn = _Turn()
            if response is not None:
                self._created(response)
        return self._turn

    def _created(self, response: str) -> None:
        self._tell("response.created", response=response, seq=self._expected[0].seq)

    def _word(self, word: Word) -> None:
        turn = self._begin(word.question)
        if word.question is not None and not turn.ids:
            self.watcher.began(self._expected[0].seq, self._expected[0].since)
        turn.ids.append(word.token)
        text = self.decode(turn.ids)
        if text.endswith(_PARTIAL):
            return
        self._delta(word.frame, word.question, text[len(turn.told) :])
        turn.told = text

    def _ended(self, ended: TurnEnded) -> None:
        turn, self._turn = self._begin(ended.question), None
        self._delta(ended.frame, ended.question, ended.text[len(turn.told) :])
        if ended.question is None:
            assert ended.frame is not None
            self.watcher.narrated(self._expected[0].seq)
            self._tell(
                "narration",
                frame=ended.frame,
                time_s=self.times[ended.frame],
                text=ended.text,
                cancelled=ended.cancelled,
            )
            self._dealt_with()
            return
        n = len(turn.ids)
        status = (
            "length"
            if n >= (self._expected[0].most or self.most)
            else "cancelled"
            if ended.cancelled
            else "completed"
        )
        self._done(ended.question, ended.text, status, n)
        self._dealt_with()

    def _failed(self, failed: Failed) -> None:
        about: dict[str, Any] = {"frame": failed.frame}
        if failed.question is not None:
            self._begin(failed.question)
            about = {"response": failed.question}
        self._turn = None
        self._tell("error", code="model_error", message=failed.error, **about)
        if failed.question is not None:
            self._done(failed.question, "", "failed", 0)
        self._dealt_with()

    def _done(self, response: str, text: str, status: str, tokens: int) -> None:
        self.watcher.answered(self._expected[0].seq, self._expected[0].since, status)
        self._tell(
            "response.done", response=response, text=text, status=status, output_tokens=tokens
        )

    def _delta(self, frame: int | None, response: str | None, delta: str) -> None:
        if not delta:
            return
        if response is not None:
            self._tell("response.delta", response=response, delta=delta)
        elif frame is not None:
            self._tell("narration.delta", frame=frame, time_s=self.times[frame], delta=delta)

    def _tell(self, kind: str, **data: Any) -> None:
        self.last += 1
        self.events.append(SessionEvent(self.last, kind, data))
        if len(self.events) > KEPT + KEPT // 10:
            del self.events[:-KEPT]
