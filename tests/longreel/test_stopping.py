"""Signals that end a command as Ctrl-C does."""

from __future__ import annotations

import asyncio
import signal

import pytest

from longreel.stopping import stopped_as_by_ctrl_c

ENDING = [signal.SIGTERM, signal.SIGHUP]


@pytest.mark.parametrize("number", ENDING)
def test_what_has_begun_is_put_in_order(number: int) -> None:
    """Guards against a command that ends on the spot, and against a second signal that cuts in."""
    done = []
    before = signal.getsignal(number)

    async def work() -> None:
        try:
            signal.raise_signal(number)
            await asyncio.sleep(5)
        finally:
            signal.raise_signal(number)
            await asyncio.sleep(0)
            done.append("closed")

    with pytest.raises(KeyboardInterrupt), stopped_as_by_ctrl_c():
        asyncio.run(work())
    assert done == ["closed"]
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", ENDING)
def test_what_is_ignored_stays_so(number: int) -> None:
    """Guards against ``nohup`` that does nothing."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with stopped_as_by_ctrl_c():
            signal.raise_signal(number)
    finally:
        signal.signal(number, before)
