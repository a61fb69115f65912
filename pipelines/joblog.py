"""A job's log without the lines that Ray writes at its head."""

from __future__ import annotations

import re

_SETUP = re.compile(r"\d{4}-\d\d-\d\d [\d:,]+\tINFO job_manager\.py:\d+ -- ")


class JobLog:
    """Takes the log in pieces as they come and returns what the job itself said.

    Args:
        submission_id, entrypoint: of the run, as Ray knows it.
    """

    def __init__(self, submission_id: str, entrypoint: str) -> None:
        self._announced = f"Running entrypoint for job {submission_id}: "
        self._more_lines = entrypoint.count("\n")
        self._skip = 0
        self._rest = ""

    def take(self, piece: str) -> str:
        """Whole lines of what has come so far; an unfinished one waits for its end."""
        *lines, self._rest = (self._rest + piece).split("\n")
        return "".join(f"{line}\n" for line in lines if self._own(line))

    def end(self) -> str:
        """The last line, where it has no end."""
        rest, self._rest = self._rest, ""
        return rest if rest and self._own(rest) else ""

    def _own(self, line: str) -> bool:
        if self._skip:
            self._skip -= 1
            return False
        if line.startswith(self._announced):
            self._skip = self._more_lines
            return False
        return not _SETUP.match(line)


def reason(message: str) -> str:
    """The one line that says why a run failed, out of Ray's message.

    That is the job's own last word where it had one, else the first line of Ray's.
    """
    head, found, tail = message.partition("last available logs (truncated")
    lines = [line.strip() for line in (tail if found else head).splitlines() if line.strip()]
    own = [line for line in lines if line.startswith("longreel: ")]
    if own:
        return own[-1].removeprefix("longreel: ")
    if found:
        return lines[-1] if len(lines) > 1 else head.strip().rstrip(",")
    return lines[0] if lines else ""
