"""Where a new session goes, and whether there is room: pure functions of what replicas report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Load:
    """What a replica reports of itself.

    Attributes:
        free_bytes: of its cache memory.
        capacity_bytes: of its cache memory in all.
        sessions: in its memory.
        resting: of these, such as nobody uses at present; their caches make room for others'.
        waiting_frames, waiting_questions: of all its sessions.
        lag_s: age of the oldest live frame that waits.
        live: share of its time that live frames and answers take as fast as they come.
        behind_s: seconds of its time that live frames and questions wait for.
        relieved: sessions that it has sent elsewhere, all in all, since it could not keep up.
    """

    free_bytes: int = 0
    capacity_bytes: int = 1
    sessions: int = 0
    resting: int = 0
    waiting_frames: int = 0
    waiting_questions: int = 0
    lag_s: float = 0.0
    live: float = 0.0
    behind_s: float = 0.0
    relieved: int = 0


#: Lag from which a replica gets new sessions only if all are as late.
LATE_S = 1.0
#: Within how many seconds a replica that is late shall have caught up.
CATCH_UP_S = 10.0


def choose(loads: Mapping[str, Load], placed: Mapping[str, int], session_bytes: int) -> str | None:
    """The owner for a new session: of those that keep up, the one with most to spare of what it
    has least of, cache memory or time.

    Args:
        loads: by owner, as last reported.
        placed: by owner, sessions placed since that report; they will take both.
        session_bytes: what a session is reckoned to take.

    Returns:
        None where there is no owner. Ties go to fewer sessions, then to the name.
    """
    # An average that outlasts the sessions: where there are none, nothing comes.
    live = {owner: load.live if load.sessions else 0.0 for owner, load in loads.items()}
    sessions = sum(load.sessions for load in loads.values())
    each = sum(live.values()) / sessions if sessions else 0.0

    def rank(owner: str) -> tuple[bool, float, int, str]:
        load, new = loads[owner], placed.get(owner, 0)
        held = load.capacity_bytes - load.free_bytes + new * session_bytes
        full = max(held / load.capacity_bytes, live[owner] + new * each)
        return load.lag_s > LATE_S, full, load.sessions + new, owner

    return min(loads, key=rank, default=None)


def overloaded(load: Load) -> bool:
    """Whether a replica is late, and what comes leaves it no time to catch up soon."""
    return load.lag_s > LATE_S and load.live + load.behind_s / CATCH_UP_S > 1.0


def has_room(load: Load, placed: int, session_bytes: int) -> bool:
    """Whether a replica takes one more session without harm to those that it has.

    It does not where it is overloaded, nor where memory is short and no session rests.

    Args:
        placed: sessions placed since it reported.
    """
    if overloaded(load):
        return False
    # Where there is little memory in all, sessions are smaller than is reckoned elsewhere.
    each = min(session_bytes, load.capacity_bytes // 16)
    return load.resting > 0 or load.free_bytes >= (placed + 1) * each


def takes(load: Load, other: Load) -> bool:
    """Whether a replica can take over one session of an overloaded one and still keep up."""
    each = other.live / max(1, other.sessions)
    return load.lag_s <= LATE_S and load.live + 2.0 * each < 0.9 and has_room(load, 0, 0)
