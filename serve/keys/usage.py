"""What each key uses at present, and how much is left of it.

All of it lives in the gateway's process and on its event loop: what is asked for is taken in the
same step, so that of calls at the same time none passes on what another has taken. Bytes of the
day and frames of the last seconds are forgotten when the gateway ends; sessions and jobs are
counted where they are kept.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from serve.keys.key import Limits
from serve.live.items import SessionError

#: Frames that may come at once, as seconds of the rate.
BURST_S = 2.0
_DAY_S = 24 * 3600


class QuotaError(SessionError):
    """A key has used up what it may; nothing was done.

    ``retry_after_s``: when it may have some again, in seconds; None where nobody knows.
    """

    def __init__(self, code: str, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(code, message)
        self.retry_after_s = retry_after_s


def _used_up(message: str, retry_after_s: float | None = None) -> QuotaError:
    return QuotaError("quota_exceeded", message, retry_after_s)


class FrameRate:
    """A bucket of frames that fills at ``rate`` a second and holds ``BURST_S`` of it.

    A call with more frames than the bucket holds passes when it is full, and is paid for before
    the next one passes: so the average holds, and a long piece of video can be given at all.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, rate: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock = rate, clock
        self._most = max(1.0, BURST_S * (rate or 0.0))
        self._left, self._at = self._most, clock()

    def check(self) -> None:
        """Raises ``QuotaError`` where not even one frame would pass now; takes none."""
        self._require(1)

    def take(self, frames: int) -> None:
        """Take so many. Raises ``QuotaError`` where they may not pass; then none is taken."""
        self._require(frames)
        self._left -= frames

    def _require(self, frames: int) -> None:
        if self._rate is None or not frames:
            return
        if not self._rate:
            raise _used_up("the key may push no frames")
        now = self._clock()
        self._left = min(self._most, self._left + (now - self._at) * self._rate)
        self._at = now
        missing = min(float(frames), self._most) - self._left
        # A hair's breadth, for sums of fractions.
        if missing > 1e-6:
            raise _used_up(f"the key may push {self._rate:g} frames a second", missing / self._rate)


class DayBytes:
    """Bytes of one day of UTC.

    Args:
        clock: seconds since 1970.
    """

    def __init__(self, most: int | None, clock: Callable[[], float] = time.time) -> None:
        self._most, self._clock = most, clock
        self._day = -1
        self._used = 0

    def take(self, size: int) -> None:
        """Take so many. Raises ``QuotaError`` where they are not left; then none is taken."""
        if self._most is None or not size:
            return
        now = self._clock()
        if self._day != (day := int(now // _DAY_S)):
            self._day, self._used = day, 0
        if self._used + size > self._most:
            midnight_s = math.ceil((day + 1) * _DAY_S - now)
            # What a whole day does not hold, no waiting makes fit.
            wait_s = None if size > self._most else midnight_s
            raise _used_up(f"the key may send {self._most} bytes in a day of UTC", wait_s)
        self._used += size

    def give_back(self, size: int) -> None:
        """Of what was taken and did not come."""
        self._used = max(0, self._used - size)


class OpenSessions:
    """The sessions that a key has open, by their ids.

    The list of all sessions is the truth, also after a restart; what opens while that list is on
    its way is known here.

    Args:
        most: that may be open at once; None is no limit.
    """

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._opening: set[str] = set()
        self._open: set[str] = set()

    async def begin(self, session: str, listed: Callable[[], Awaitable[set[str]]]) -> None:
        """Take a place for ``session``; ``opened`` or ``ended`` must follow.

        Args:
            listed: gives the ids of the key's sessions that are kept.

        Raises:
            QuotaError: there is none.
        """
        if self._most is not None:
            # Opened before the list was asked for, so those that it lacks are closed.
            before = set(self._open)
            there = await listed()
            self._open -= before - there
            if len(there | self._open | self._opening) >= self._most:
                raise _used_up(f"the key may have {self._most} sessions open at once")
        # No other call has run since the list came.
        self._opening.add(session)

    def opened(self, session: str) -> None:
        """It is among those that are listed."""
        if self._most is not None:
            self._open.add(session)
        self._opening.discard(session)

    def ended(self, session: str) -> None:
        """It could not be opened, or is closed."""
        self._opening.discard(session)
        self._open.discard(session)


@dataclass(frozen=True)
class Usage:
    """What one key may use, and uses.

    Attributes:
        jobs: held while the running jobs of the key are counted and one more begins.
        streams: held while the rates of its streams are summed and one more begins.
    """

    limits: Limits
    frames: FrameRate
    upload: DayBytes
    sessions: OpenSessions
    jobs: asyncio.Lock
    streams: asyncio.Lock

    @classmethod
    def of(cls, limits: Limits) -> Usage:
        """Nothing used so far."""
        return cls(
            limits,
            FrameRate(limits.frames_per_second),
            DayBytes(limits.upload_bytes),
            OpenSessions(limits.sessions),
            asyncio.Lock(),
            asyncio.Lock(),
        )


def require_jobs(limits: Limits, active: int) -> None:
    """Raises ``QuotaError`` where one more than ``active`` jobs would be too many."""
    if limits.jobs is not None and active >= limits.jobs:
        raise _used_up(f"the key may have {limits.jobs} jobs at once")


def require_stream(limits: Limits, rates: list[float], more: float) -> None:
    """Raises ``QuotaError`` where streams of ``rates`` and one more pull too many frames.

    Args:
        rates: frames a second of each running stream; ``more`` of the new one.
    """
    most = limits.frames_per_second
    if most is not None and sum(rates) + more > most + 1e-6:
        raise _used_up(f"the key may pull {most:g} frames a second, {sum(rates):g} are pulled")
