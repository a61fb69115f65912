"""How a replica that is behind gets rid of sessions, without a model."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from serve.live.pace import Pace
from serve.live.relief import Relief
from serve.live.session import LiveSession


def _session() -> LiveSession:
    session: Any = SimpleNamespace(
        id="s",
        options=SimpleNamespace(kind="live", durable=True),
        transcript=SimpleNamespace(waiting=1),
        leaving=False,
        leave=lambda whether=True: setattr(session, "leaving", whether),
    )
    return cast(LiveSession, session)


@pytest.mark.parametrize("goes", [True, False])
def test_what_has_gone_counts_once(goes: bool) -> None:
    """Guards against a count of orders, which come again and again while one session drains."""

    async def work() -> int:
        session = _session()
        there = {"s": session}

        async def offload(one: LiveSession) -> bool:
            if goes:
                del there[one.id]
            return goes

        pace = cast(Pace, SimpleNamespace(rate=lambda _: 1.0))
        relief = Relief(pace, lambda: there, offload)
        for _ in range(3):
            relief.begin()
            await asyncio.sleep(0)
        assert relief.relieved == 0
        transcript: Any = session.transcript
        transcript.waiting = 0
        await asyncio.sleep(0.05)
        return relief.relieved

    assert asyncio.run(work()) == goes
