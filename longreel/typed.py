"""A line typed in a terminal, where a Ctrl-C is never lost."""

from __future__ import annotations

import select
import signal
import socket
import sys


def typed_line(prompt: str) -> str:
    """Show ``prompt`` and return the line that is typed, without its end.

    ``input`` alone loses a Ctrl-C that comes after the prompt and before its read has begun:
    Python sees it only once another key is pressed. Here the signal itself wakes what waits. For
    the main thread, and for a standard input that is a terminal.

    Raises:
        EOFError: the input has ended.
        KeyboardInterrupt: on Ctrl-C, as soon as it is pressed.
    """
    print(prompt, end="", flush=True)
    wakes, woken = socket.socketpair()
    with wakes, woken:
        woken.setblocking(False)
        before = signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False)
        try:
            while sys.stdin not in select.select([sys.stdin, wakes], [], [])[0]:
                wakes.recv(4096)
        finally:
            signal.set_wakeup_fd(before)
    return input()
