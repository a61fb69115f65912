"""What keys may use: rates, days, places; also when many ask at once.

Guards against limits that are passed by asking at once, and places that are lost where a call
fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from serve.keys.key import Limits
from serve.keys.usage import (
    DayBytes,
    FrameRate,
    OpenSessions,
    QuotaError,
    require_jobs,
    require_stream,
)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def refused(work: Callable[[], Any]) -> QuotaError:
    with pytest.raises(QuotaError) as error:
        work()
    assert error.value.code == "quota_exceeded"
    return error.value


def test_frames_pass_at_the_rate_and_two_seconds_of_it_at_once() -> None:
    clock = Clock()
    rate = FrameRate(4.0, clock)
    for _ in range(8):
        rate.take(1)
    assert refused(lambda: rate.take(1)).retry_after_s == pytest.approx(0.25)
    refused(rate.check)
    passed = 0
    for _ in range(1000):  # ten seconds, asked a hundred times in each
        clock.now += 0.01
        try:
            rate.take(1)
        except QuotaError:
            continue
        passed += 1
    assert passed == 40


def test_a_long_piece_passes_and_is_paid_for() -> None:
    """Guards against a piece that no bucket ever holds, and against one that costs nothing."""
    clock = Clock()
    rate = FrameRate(2.0, clock)
    rate.take(100)
    wait_s = refused(lambda: rate.take(1)).retry_after_s
    assert wait_s is not None
    assert wait_s == pytest.approx(97 / 2)
    clock.now += wait_s - 0.1
    refused(rate.check)
    clock.now += 0.2
    rate.take(1)
    refused(lambda: rate.take(100))  # the bucket is not full


def test_what_is_refused_takes_nothing() -> None:
    clock = Clock()
    rate = FrameRate(1.0, clock)
    rate.take(1)
    for _ in range(5):
        refused(lambda: rate.take(2))
    rate.take(1)


def test_no_limit_and_a_limit_of_none() -> None:
    FrameRate(None).take(10**9)
    DayBytes(None).take(10**15)
    assert refused(lambda: FrameRate(0.0).take(1)).retry_after_s is None
    FrameRate(0.0).take(0)  # a question


def test_bytes_are_those_of_one_day_of_utc() -> None:
    """Guards against a day that begins with the service, or never ends."""
    clock = Clock()
    clock.now = 20_000 * 86_400.0 - 60
    day = DayBytes(1000, clock)
    day.take(900)
    assert refused(lambda: day.take(101)).retry_after_s == 60
    day.take(100)
    day.give_back(40)
    day.take(40)
    refused(lambda: day.take(1))
    clock.now += 61
    day.take(1000)
    assert refused(lambda: day.take(1001)).retry_after_s is None, "no day holds it"


def test_places_are_not_given_twice_to_those_who_ask_at_once() -> None:
    """Guards against a check and a taking with a wait between."""

    async def scenario() -> None:
        there: set[str] = {"earlier"}

        async def listed() -> set[str]:
            seen = set(there)
            await asyncio.sleep(0.01)  # the answer is on its way
            return seen

        places = OpenSessions(3)

        async def open_(name: str) -> bool:
            try:
                await places.begin(name, listed)
            except QuotaError:
                return False
            await asyncio.sleep(0)
            there.add(name)
            places.opened(name)
            return True

        opened = await asyncio.gather(*(open_(f"s{n}") for n in range(10)))
        assert sum(opened) == 2
        assert not await open_("late")
        first = next(iter(there - {"earlier"}))
        there.discard(first)
        places.ended(first)
        assert await open_("again")
        # Closed by somebody else: only the list knows.
        there.discard("again")
        assert await open_("and again")
        assert not await open_("too many")

    asyncio.run(scenario())


def test_a_session_that_failed_to_open_takes_no_place() -> None:
    async def scenario() -> None:
        async def listed() -> set[str]:
            return set()

        places = OpenSessions(1)
        for number in range(3):
            await places.begin(f"s{number}", listed)
            with pytest.raises(QuotaError):
                await places.begin("other", listed)
            places.ended(f"s{number}")

    asyncio.run(scenario())


def test_jobs_and_streams() -> None:
    require_jobs(Limits(jobs=2), 1)
    refused(lambda: require_jobs(Limits(jobs=2), 2))
    refused(lambda: require_jobs(Limits(jobs=0), 0))
    require_jobs(Limits(), 10**6)
    require_stream(Limits(frames_per_second=4.0), [2.0], 2.0)
    refused(lambda: require_stream(Limits(frames_per_second=4.0), [2.0, 2.0], 0.5))
    require_stream(Limits(), [1000.0], 1000.0)
