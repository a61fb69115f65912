"""The command line as a process of its own, also in a terminal."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

TIMEOUT_S = 90.0
_ROOT = Path(__file__).parent.parent.parent


def environment(**more: str) -> dict[str, str]:
    """A small one, so that nothing on this machine decides a test."""
    return {"PATH": "/usr/bin:/bin", "COLUMNS": "200", "TERM": "xterm", **more}


def command(*arguments: str) -> list[str]:
    """What starts the command line."""
    return [sys.executable, "-m", "longreel.cli", *arguments]


def run(
    *arguments: str, stdin: bytes | None = None, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run to the end, away from any terminal."""
    done = subprocess.run(
        command(*arguments),
        input=stdin if stdin is not None else b"",
        capture_output=True,
        timeout=TIMEOUT_S,
        env=environment(**more),
        cwd=_ROOT,
        check=False,
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


@dataclass
class Terminal:
    """A command whose standard input and output are a terminal."""

    process: subprocess.Popen[bytes]
    descriptor: int
    shown: str = field(default="")

    def type(self, text: str) -> None:
        """Press these keys."""
        os.write(self.descriptor, text.encode())

    def wait_for(self, text: str) -> None:
        """Until the terminal shows ``text`` somewhere."""
        deadline = time.monotonic() + TIMEOUT_S
        while text not in self.shown:
            assert time.monotonic() < deadline, self.shown
            assert self._read(), f"ended without {text!r}: {self.shown}"

    def wait(self) -> int:
        """The exit status, once the command has ended; all it showed is in ``shown``."""
        deadline = time.monotonic() + TIMEOUT_S
        while self._read():
            assert time.monotonic() < deadline, self.shown
        return self.process.wait(TIMEOUT_S)

    def _read(self) -> bool:
        ready, _, _ = select.select([self.descriptor], [], [], 1.0)
        if not ready:
            return True
        try:
            piece = os.read(self.descriptor, 65536)
        except OSError:  # the other side is closed
            return False
        self.shown += piece.decode("utf-8", "replace")
        return bool(piece)


def terminal(*arguments: str, **more: str) -> AbstractContextManager[Terminal]:
    """Start the command line in a terminal; it is ended with the block at the latest."""
    return in_terminal(command(*arguments), **more)


@contextmanager
def in_terminal(argv: list[str], **more: str) -> Iterator[Terminal]:
    """Start a program in a terminal; it is ended with the block at the latest."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        argv,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment(**more),
        cwd=_ROOT,
        # Ctrl-C typed into the terminal reaches the command alone.
        start_new_session=True,
        preexec_fn=_take_terminal,
    )
    os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(ours)


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
