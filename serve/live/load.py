"""How full a replica is: what the directory places sessions by, and autoscaling decides by."""

from __future__ import annotations

from collections.abc import Sequence

from actors.placement import Load
from serve.live.pace import Pace
from serve.live.session import LiveSession
from serve.scaling import Report

#: After which a session that nobody uses makes room for others, in seconds.
_RESTS_S = 10.0


def load_of(
    sessions: Sequence[LiveSession],
    pace: Pace,
    memory: tuple[int, int],
    relieved: int,
    now_s: float,
) -> Load:
    """The load of a replica.

    Args:
        sessions: all that it has.
        memory: bytes of caches that are free and there are in all.
        relieved: sessions that it has sent elsewhere.
        now_s: on the monotonic clock.
    """
    free, capacity = memory
    live = [s for s in sessions if s.options.kind == "live"]
    frames = sum(s.transcript.waiting_frames for s in sessions)
    waiting = sum(s.transcript.waiting for s in sessions)
    since = [s.transcript.waiting_since for s in live]
    return Load(
        relieved=relieved,
        free_bytes=free,
        capacity_bytes=capacity,
        sessions=len(sessions),
        resting=sum(now_s - s.used > _RESTS_S for s in sessions),
        waiting_frames=frames,
        waiting_questions=waiting - frames,
        lag_s=max((now_s - one for one in since if one is not None), default=0.0),
        live=pace.live,
        behind_s=pace.behind_s(
            {s.id: s.transcript.waiting_frames for s in live},
            {s.id: s.counters.fps for s in live},
            sum(s.transcript.waiting - s.transcript.waiting_frames for s in live),
        ),
    )


def report_of(load: Load, bulk_calls: int, waiting_sessions: int) -> Report:
    """What the autoscaling policy is told.

    Args:
        bulk_calls: of bulk jobs that are under way.
        waiting_sessions: that wait for a replica, whichever.
    """
    return Report(
        live=load.live,
        behind_s=load.behind_s,
        cache=1.0 - load.free_bytes / load.capacity_bytes,
        bulk=float(bulk_calls),
        sessions=float(load.sessions),
        waiting_sessions=float(waiting_sessions),
    )
