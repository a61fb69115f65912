"""Signals that end a command as Ctrl-C does."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import pytest

from longreel.stopping import stopped_as_by_ctrl_c

ENDING = [signal.SIGTERM, signal.SIGHUP]


@pytest.mark.parametrize("ctrl_c", [signal.default_int_handler, signal.SIG_IGN])
@pytest.mark.parametrize("second", ENDING)
@pytest.mark.parametrize("number", ENDING)
def test_what_has_begun_is_put_in_order(
    number: int, second: int, ctrl_c: Any, request: pytest.FixtureRequest
) -> None:
    """Guards against a command that ends on the spot, or not at all where a script runs it in the
    background, and against a second signal that cuts in."""
    done = []
    before = signal.getsignal(number)
    usual = signal.signal(signal.SIGINT, ctrl_c)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, usual))

    async def work() -> None:
        try:
            signal.raise_signal(number)
            await asyncio.sleep(5)
        finally:
            signal.raise_signal(second)
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
