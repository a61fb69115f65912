"""When a live picture was shown, and which of them a session takes; plain arithmetic."""

from __future__ import annotations

import math

#: A source may fall so far behind; beyond it, its clock has jumped and is set anew. What comes in
#: segments does so with each of them, and never goes back.
_MOST_BEHIND_S = 60.0
_MOST_BEHIND_GONE_BACK_S = 10.0
#: Less than that is how a source counts and no jump.
_GONE_BACK_S = 1.0
#: Seconds that a source's clock may go slow in a second, before that counts as lying behind.
_DRIFT = 0.001
#: What lay waiting when a source was opened has come by then.
_SETTLED_S = 3.0
_EDGE = 1e-6


class SourceClock:
    """The time of each picture of one connection, by a clock that goes as the wall's does.

    A network delays pictures and never hastens them, so the one that came soonest after its
    timestamp tells how the source's clock stands to ours. What arrives late keeps its own time;
    what comes in a burst, as servers begin, is never put into the future.

    Args:
        last_s: of the last picture before this connection; times do not go back before it.
    """

    def __init__(self, last_s: float = 0.0) -> None:
        self._last_s = last_s
        self._offset_s: float | None = None
        self._seen_s = 0.0
        self._stamp_s = 0.0
        self._settles_at: float | None = None
        self._settled = False

    def shown_at(self, stamp_s: float | None, now_s: float) -> float | None:
        """Seconds of the stream at which a picture was shown.

        None for those that lay waiting when the source was opened: they are past, by how much is
        known once one comes that had to be waited for.

        Args:
            stamp_s: its timestamp in the source; None where the source has none of its own.
            now_s: seconds of the stream now.
        """
        shown_s = now_s
        if self._settles_at is None:
            self._settles_at = now_s + _SETTLED_S
        elif stamp_s is None or now_s > self._settles_at:
            self._settled = True
        else:
            waited_s, between_s = now_s - self._seen_s, stamp_s - self._stamp_s
            self._settled |= waited_s > between_s / 2 > 0
        if stamp_s is not None:
            gone_back = self._stamp_s - stamp_s > _GONE_BACK_S
            most_behind_s = _MOST_BEHIND_GONE_BACK_S if gone_back else _MOST_BEHIND_S
            self._stamp_s = stamp_s
            offset_s = now_s - stamp_s
            known = self._offset_s
            if known is None or offset_s > known + most_behind_s:
                self._offset_s = offset_s
            else:
                self._offset_s = min(known + _DRIFT * (now_s - self._seen_s), offset_s)
            shown_s = stamp_s + self._offset_s
        self._seen_s = now_s
        if not self._settled:
            return None
        self._last_s = max(self._last_s, min(shown_s, now_s))
        return self._last_s


class Grid:
    """Points ``k / fps`` of a stream's time: the first picture at or after each is taken.

    Args:
        fps: of the session.
        last_s: time of the last picture that was taken before; None when there was none.
    """

    def __init__(self, fps: float, last_s: float | None = None) -> None:
        self._fps = fps
        self._last = -1 if last_s is None else self._point(last_s)

    def take(self, time_s: float) -> float | None:
        """The grid's time that a picture at ``time_s`` stands for; None when that has one.

        It lies less than ``1 / fps`` before the picture. A session of the same fps never finds
        two of them too close.
        """
        point = self._point(time_s)
        if point <= self._last:
            return None
        self._last = point
        return point / self._fps

    def _point(self, time_s: float) -> int:
        return math.floor(time_s * self._fps + _EDGE)
