"""What ``longreel watch`` prints: narrations, questions and answers, and the line at its end."""

from __future__ import annotations

import time
from collections import Counter

from rich.console import Console
from rich.text import Text

from longreel.errors import LongreelError
from longreel.readable import clock, prose


class WatchView:
    """Prints lines as things happen and counts them; colours where the output is a terminal.

    Args:
        out: takes narrations and answers.
        err: takes notes and the tally.
    """

    def __init__(self, out: Console, err: Console) -> None:
        self._out = out
        self._err = err
        self._began = time.monotonic()
        self._failures: set[str] = set()
        self.frames = 0
        self.narrations = 0
        self.answers = 0
        self.dropped: Counter[str] = Counter()

    def narration(self, time_s: float | None, text: str) -> None:
        """What the model said at a frame."""
        self.narrations += 1
        when = "--:--.-" if time_s is None else clock(time_s)
        self._line(self._out, (f"{when}  ", "cyan"), (prose(text), ""))

    def answer(self, question: str, text: str, status: str) -> None:
        """A question and what came of it."""
        self.answers += 1
        self._line(self._out, ("? ", "bold"), (prose(question), "bold"))
        how = "" if status == "completed" else f" ({status})"
        self._line(self._out, ("> ", "green"), (prose(text), "green"), (how, "dim"))

    def note(self, text: str) -> None:
        """Something that is amiss and does not end it."""
        self._line(self._err, ("! ", "yellow"), (prose(text), "yellow"))

    def waiting(self, failure: LongreelError, seconds: float) -> None:
        """The service is away or busy, and is tried again."""
        # What passes at once is nobody's concern, and each reason is worth one line.
        if seconds > 1.0 and str(failure) not in self._failures:
            self._failures.add(str(failure))
            self.note(f"{failure}; trying again")

    def tally(self) -> None:
        """One line on all of it."""
        parts = [_counted(self.frames, "frame")]
        if self.dropped:
            reasons = ", ".join(f"{n} {why}" for why, n in sorted(self.dropped.items()))
            parts.append(f"{sum(self.dropped.values())} dropped ({reasons})")
        parts += [_counted(self.narrations, "narration"), _counted(self.answers, "answer")]
        said = ", ".join(parts) + f" in {time.monotonic() - self._began:.1f} s"
        self._line(self._err, (said, "dim"))

    @staticmethod
    def _line(console: Console, *parts: tuple[str, str]) -> None:
        console.print(Text.assemble(*parts), highlight=False, soft_wrap=True)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
