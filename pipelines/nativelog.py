"""Keeps the routine reports of Ray's C++ core off this process's terminal."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

#: ``[2026-01-31 12:00:00,123 E 4711 4712] core_worker.cc:2465: ...``
_REPORT = re.compile(rb"^\[\d{4}-\d\d-\d\d [\d:,]+ [A-Z] \d+ \d+\] .*\.cc:\d+: ")


@contextmanager
def without_native_reports() -> Iterator[None]:
    """Pass on what is written to stderr meanwhile, except lines that Ray's core logs there.

    The core writes past Python to file descriptor 2 and has no switch for it in the process that
    drives a job; the same lines are in Ray's log files. A writer that must see a terminal (a
    live display) has to hold a duplicate of the descriptor from before.
    """
    terminal = os.dup(2)
    source, sink = os.pipe()
    os.dup2(sink, 2)
    os.close(sink)
    reader = threading.Thread(target=_forward, args=(source, terminal), daemon=True)
    reader.start()
    try:
        yield
    finally:
        os.dup2(terminal, 2)
        # Processes that Ray left behind may hold the pipe open: do not wait for its end.
        reader.join(timeout=0.5)
        if not reader.is_alive():
            os.close(terminal)


def _forward(source: int, terminal: int) -> None:
    with os.fdopen(source, "rb") as lines:
        for line in lines:
            if not _REPORT.match(line):
                os.write(terminal, line)
