"""Where a new session goes: a pure function of what replicas report."""

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
        waiting_frames, waiting_questions: of all its sessions.
        lag_s: age of the oldest live frame that waits.
    """

    free_bytes: int = 0
    capacity_bytes: int = 1
    sessions: int = 0
    waiting_frames: int = 0
    waiting_questions: int = 0
    lag_s: float = 0.0


#: Lag from which a replica gets new sessions only if all are as late.
LATE_S = 1.0


def choose(loads: Mapping[str, Load], placed: Mapping[str, int], session_bytes: int) -> str | None:
    """The owner for a new session: of those that keep up, where most cache memory is free.

    Args:
        loads: by owner, as last reported.
        placed: by owner, sessions placed since that report; they will take memory.
        session_bytes: what a session is reckoned to take.

    Returns:
        None where there is no owner. Ties go to fewer sessions, then to the name.
    """

    def rank(owner: str) -> tuple[bool, int, int, str]:
        load, new = loads[owner], placed.get(owner, 0)
        free = load.free_bytes - new * session_bytes
        return load.lag_s > LATE_S, -free, load.sessions + new, owner

    return min(loads, key=rank, default=None)
