"""What becomes of a session's inputs, as metrics."""

from __future__ import annotations

import time
from collections.abc import Sequence

from serve.live.items import Frame, Input, Receipt
from serve.live.transcript import Watcher
from serve.observe import replica, traces
from serve.observe.ids import Ids, current

#: Calls and questions of a session that are under way, for spans.
_TURNS = 1000


class Measured(Watcher):
    """Counts one session's inputs.

    What a log gave again was counted when it was new, where that was.

    Args:
        kind: ``live`` or ``bulk``.

    Attributes:
        replayed: the last sequence number that the log gave.
    """

    def __init__(self, kind: str) -> None:
        self._accepted = replica.FRAMES_ACCEPTED.labels(kind)
        self._lag = replica.FRAME_LAG.labels(kind)
        self._narrations = replica.NARRATIONS.labels(kind)
        self._cause, self._since = "", 0.0
        self._turns: dict[int, tuple[Ids, int]] = {}
        self.replayed = 0

    def taken_in(self, new: Sequence[tuple[Input, Receipt, float]]) -> None:
        """Inputs were made durable."""
        if (ids := current()) is not None and traces.enabled():
            # A span for each question, and one for the frames of a call.
            asked = [r.seq for given, r, _ in new if not isinstance(given, Frame)]
            seen = [r.seq for given, r, _ in new if isinstance(given, Frame) and not r.reason]
            self._turns |= dict.fromkeys([*asked, *seen[-1:]], (ids, time.time_ns()))
            while len(self._turns) > _TURNS:  # of frames that failed nothing more is heard
                del self._turns[next(iter(self._turns))]
        frames = [receipt for given, receipt, _ in new if isinstance(given, Frame)]
        self._accepted.inc(sum(receipt.reason is None for receipt in frames))
        for receipt in frames:
            if receipt.reason is not None:
                replica.FRAMES_DROPPED.labels(receipt.reason).inc()

    def returning(self, cause: str, since: float) -> None:
        """The session came from elsewhere, and is back when its log is replayed."""
        self._cause, self._since = cause, since

    def returned(self) -> None:
        """It has nothing left to replay."""
        if self._cause:
            replica.RECOVERY.labels(self._cause).observe(time.monotonic() - self._since)
            self._cause = ""

    def seen(self, seq: int, since: float) -> None:
        """See ``Watcher``."""
        if seq > self.replayed:
            self._lag.observe(time.monotonic() - since)
            self._turn_ended("engine.watch", seq)

    def narrated(self, seq: int) -> None:
        """See ``Watcher``."""
        if seq > self.replayed:
            self._narrations.inc()

    def began(self, seq: int, since: float) -> None:
        """See ``Watcher``."""
        if seq > self.replayed:
            replica.FIRST_WORD.observe(time.monotonic() - since)

    def answered(self, seq: int, since: float, status: str) -> None:
        """See ``Watcher``."""
        if seq > self.replayed:
            replica.ANSWERS.labels(status).inc()
            replica.ANSWER_SECONDS.observe(time.monotonic() - since)
            self._turn_ended("engine.answer", seq, failed=status == "failed")

    def _turn_ended(self, name: str, seq: int, *, failed: bool = False) -> None:
        if turn := self._turns.pop(seq, None):
            ids, began_ns = turn
            traces.record(name, ids, began_ns, failed=failed)
