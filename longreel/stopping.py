"""Signals that end a command as Ctrl-C does, so that it leaves nothing behind at a service."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: From a supervisor, and from a terminal that is closed.
_ENDING = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def stopped_as_by_ctrl_c() -> Iterator[None]:
    """Within the block SIGTERM and SIGHUP do what SIGINT does, in an event loop too.

    For the main thread. A signal that was ignored (``nohup``) stays so.
    """
    before = {number: signal.getsignal(number) for number in _ENDING}
    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, _interrupt)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    # A closed terminal may tell of it twice, a supervisor in both ways: the second must not cut
    # short what the first began.
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)
    # Shells ignore Ctrl-C on behalf of what they run in the background.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)
