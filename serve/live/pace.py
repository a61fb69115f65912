"""How much of a replica's time live work takes: a pure account of what comes and of steps."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

#: Over how many seconds what comes is averaged, and steps are remembered.
AVERAGE_S, REMEMBERED_S = 5.0, 60.0
#: How long a step may take if frames are to be seen within a second of their coming: one that
#: comes when a step has just begun waits for two.
STEP_S = 0.5
#: Units a second of a replica that rests: averages fade and never end.
_NOTHING = 0.01
#: Words of an answer, until some were counted.
_ANSWER_WORDS = 12.0


@dataclass
class StepTimes:
    """What steps cost, from how long they took: something each, and something for each unit.

    A unit is a frame that was seen or a word that was said. Steps that hold more units cost less a
    unit, so that a replica that is busy half the time may have room for many times its sessions:
    the line through what was measured tells. Units and seconds fade over ``REMEMBERED_S``.
    """

    words: int = 0
    turns: int = 0
    _at_s: float = 0.0
    _n: float = 0.0
    _x: float = 0.0
    _y: float = 0.0
    _xx: float = 0.0
    _xy: float = 0.0

    def stepped(self, now_s: float, seconds: float, frames: int, words: int, turns: int) -> None:
        """A step took ``seconds``, in which so much was seen and said, and so many turns ended."""
        self.words += words
        self.turns += turns
        fade = math.exp(min(0.0, self._at_s - now_s) / REMEMBERED_S)
        self._at_s, x, y = now_s, float(frames + words), seconds
        self._n = self._n * fade + 1.0
        self._x = self._x * fade + x
        self._y = self._y * fade + y
        self._xx = self._xx * fade + x * x
        self._xy = self._xy * fade + x * y

    @property
    def cost(self) -> tuple[float, float]:
        """Seconds of a step without units, and of each unit; (0, 0) before any was measured."""
        if not self._x:
            return 0.0, 0.0
        mean_x, mean_y = self._x / self._n, self._y / self._n
        variance = self._xx / self._n - mean_x**2
        each = mean_y / mean_x
        # Where all steps are alike they do not tell what part of them is fixed: reckon with none.
        if variance > 0.05 * mean_x**2:
            slope = (self._xy / self._n - mean_x * mean_y) / variance
            each = min(each, max(slope, 0.1 * each))
        return max(0.0, mean_y - each * mean_x), each

    @property
    def answer_units(self) -> float:
        """Words of a turn, on average."""
        return (self.words + _ANSWER_WORDS) / (self.turns + 1)


@dataclass
class _Came:
    frames: int
    rate: float = 0.0  # frames a second


@dataclass
class Pace:
    """What live sessions bring, beside what steps cost.

    Attributes:
        live: share of the replica's time that it takes as fast as it comes.
    """

    steps: StepTimes = field(default_factory=StepTimes)
    live: float = 0.0
    _sessions: dict[str, _Came] = field(default_factory=dict)
    _words: int = 0
    _word_rate: float = 0.0
    _at_s: float | None = None

    def look(self, now_s: float, sessions: dict[str, tuple[int, float]]) -> None:
        """Look once more, about once a second.

        Args:
            sessions: of each live one the frames it has accepted so far, and its frames a second.
        """
        since = 0.0 if self._at_s is None else now_s - self._at_s
        before, self._sessions = self._sessions, {}
        new = 1.0 - math.exp(-since / AVERAGE_S)
        for name, (frames, fps) in sessions.items():
            came = before.get(name)
            if came is None or since <= 0.0:
                # What it had before it came here was not brought now.
                self._sessions[name] = came or _Came(frames)
                continue
            # Recorded video comes as fast as the network: a stream takes no more than its fps.
            rate = min(max(0, frames - came.frames) / since, fps)
            self._sessions[name] = _Came(frames, came.rate + new * (rate - came.rate))
        if since > 0.0:
            self._word_rate += new * ((self.steps.words - self._words) / since - self._word_rate)
        self._words, self._at_s = self.steps.words, now_s
        fixed, each = self.steps.cost
        units = sum(came.rate for came in self._sessions.values()) + self._word_rate
        if units < _NOTHING:
            units = 0.0
        # The step that holds a moment's units is as long as it may be when they take this share.
        self.live = units * each / (1.0 - min(0.8, fixed / STEP_S))

    def rate(self, session: str) -> float:
        """Frames a second that a session brings at present."""
        came = self._sessions.get(session)
        return came.rate if came else 0.0

    def behind_s(self, waiting: dict[str, int], fps: dict[str, float], questions: int) -> float:
        """Seconds of the replica's time that what waits will take.

        Args:
            waiting: frames of each live session; of one that is ahead of real time only as many
                count as come in two seconds.
            questions: of all of them.
        """
        frames = sum(min(count, 2.0 * fps[name]) for name, count in waiting.items())
        return (frames + questions * self.steps.answer_units) * self.steps.cost[1]
