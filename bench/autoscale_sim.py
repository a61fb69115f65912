"""Replicas under a trace of live sessions, second by second: no Ray, no clock.

Frames of a replica's sessions wait in one queue that it works off at its capacity. Sessions are
placed as the directory does it, and stay until their replica goes. How many are live does not
depend on that: what a policy does that looks at calls alone, ``targets`` knows without it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actors.placement import LATE_S, Load, choose, has_room, overloaded, takes
from bench.arrivals import Trace
from serve.scaling import Report, Scaler

_PAUSES_S = 200.0  # a session with pauses is active once in so many seconds
_NONE, _WAITS, _GONE = -1, -2, -3


@dataclass(frozen=True)
class World:
    """What is assumed.

    Attributes:
        capacity: frames a second that a replica works off.
        answer: frames that an answer costs as much as.
        start_s: from the decision for a replica to its first session.
        move_s: for which a session is away when its replica goes.
        late_s: lag from which a session's second counts as a violation.
        session_cache: share of a replica's cache that a session takes.
        report_s: between two reports of a replica.
        average_s: over which a replica's reports average.
        patience_s: after which a session that finds no room is placed all the same.
        first: replicas at the beginning.
    """

    capacity: float = 70.0
    answer: float = 12.0
    start_s: int = 45
    move_s: int = 2
    late_s: float = 1.0
    session_cache: float = 1 / 200
    report_s: int = 2
    average_s: int = 5
    patience_s: int = 60
    first: int = 6


@dataclass(frozen=True)
class Seen:
    """What a policy is shown at each second.

    Attributes:
        calls: sessions that are live, for each second so far; each is a call.
        reports: of the ready replicas, as they last came.
        target: how many are wanted.
    """

    now_s: int
    calls: list[int]
    reports: list[Report]
    target: int


#: The new target from what is seen.
Policy = Callable[[Seen], int]


@dataclass(frozen=True)
class Outcome:
    """What a policy made of a trace.

    Attributes:
        late_s: seconds of sessions with more lag than allowed, without a place or on the move.
        live_s: seconds of sessions in all.
        replica_hours: from the decision for a replica to its end.
        most: replicas at once.
        late_by_s: (length,) sessions that were late in each second.
        replicas_by_s: (length,) replicas in each second, those that start included.
        sessions_by_s: (length,) sessions in each second.
    """

    late_s: float
    live_s: float
    replica_hours: float
    most: int
    late_by_s: NDArray[np.int64]
    replicas_by_s: NDArray[np.int64]
    sessions_by_s: NDArray[np.int64]


@dataclass
class _Replica:
    ready_s: int
    queue: float
    coming: deque[float]
    held: int = 0  # sessions
    live: float = 0.0  # share of the capacity that comes, on average

    def work(self, came: float, world: World) -> None:
        """One second in which so many frames come."""
        self.coming.append(came)
        self.live = sum(self.coming) / len(self.coming) / world.capacity
        self.queue = max(0.0, self.queue + came - world.capacity)

    def behind_s(self, world: World) -> float:
        # Of each session as much counts as comes in two seconds; see ``serve.live.pace``.
        return min(self.queue / world.capacity, 2.0 * self.live)

    def report(self, world: World, waiting: int) -> Report:
        return Report(
            live=self.live,
            behind_s=self.behind_s(world),
            cache=self.held * world.session_cache,
            sessions=self.held,
            waiting_sessions=waiting,
        )

    def load(self, world: World) -> Load:
        capacity = round(1 / world.session_cache)
        return Load(
            free_bytes=capacity - self.held,
            capacity_bytes=capacity,
            sessions=self.held,
            lag_s=self.queue / world.capacity,
            live=self.live,
            behind_s=self.behind_s(world),
        )


class Simulation:
    """One run of ``policy`` over ``trace``."""

    def __init__(self, trace: Trace, world: World, policy: Policy) -> None:
        self._trace, self._world, self._policy = trace, world, policy
        self._replicas: dict[int, _Replica] = {}
        self._number = 0
        for _ in range(world.first):
            self._start(0)
        n = len(trace.starts)
        #: Of each session: its replica, or why it has none; and until when it is on the move.
        self._at = np.full(n, _NONE)
        self._away_s = np.zeros(n)
        self._live = np.empty(0, dtype=int)
        self._next = 0
        self.relieved = 0

    def run(self) -> Outcome:
        """The outcome of the whole trace."""
        trace, world = self._trace, self._world
        target, reports, calls = world.first, list[Report](), list[int]()
        late_by_s, replicas_by_s, sessions_by_s = np.zeros((3, trace.length_s), dtype=int)
        for now in range(trace.length_s):
            self._come_and_go(now)
            if now in trace.losses_s:
                self._lose(now)
            ready = {k: r for k, r in self._replicas.items() if r.ready_s <= now}
            self._place(now, ready)
            self._relieve(now, ready)
            late_by_s[now] = self._work(now, ready)
            sessions_by_s[now] = len(self._live)
            calls.append(len(self._live))
            if now % world.report_s == 0:
                waiting = int(np.sum(self._at[self._live] == _WAITS))
                reports = [r.report(world, waiting) for r in ready.values()]
            wanted = max(1, self._policy(Seen(now, calls, reports, target)))
            while len(self._replicas) < wanted:
                self._start(now + world.start_s)
            while len(self._replicas) > wanted:
                # As Ray Serve: such as do not run yet first, then the newest.
                last = max(self._replicas, key=lambda k: (self._replicas[k].ready_s > now, k))
                self._end(last, now)
            target = wanted
            replicas_by_s[now] = len(self._replicas)
        return Outcome(
            late_s=float(late_by_s.sum()),
            live_s=float(sessions_by_s.sum()),
            replica_hours=float(replicas_by_s.sum()) / 3600,
            most=int(replicas_by_s.max()),
            late_by_s=late_by_s,
            replicas_by_s=replicas_by_s,
            sessions_by_s=sessions_by_s,
        )

    def _start(self, ready_s: int) -> None:
        self._replicas[self._number] = _Replica(ready_s, 0.0, deque(maxlen=self._world.average_s))
        self._number += 1

    def _end(self, number: int, now: int) -> None:
        """Its sessions look for another place."""
        del self._replicas[number]
        moved = self._live[self._at[self._live] == number]
        self._at[moved] = _NONE
        self._away_s[moved] = now + self._world.move_s

    def _lose(self, now: int) -> None:
        """The fullest is gone; another takes its place."""
        ready = [k for k, r in self._replicas.items() if r.ready_s <= now]
        if ready:
            self._end(max(ready, key=lambda k: self._replicas[k].held), now)
            self._start(now + self._world.start_s)

    def _come_and_go(self, now: int) -> None:
        trace = self._trace
        ended = trace.ends[self._live] <= now
        last = int(np.searchsorted(trace.starts, now + 1))
        if last == self._next and not ended.any():
            return
        self._at[self._live[ended]] = _GONE
        self._live = np.concatenate([self._live[~ended], np.arange(self._next, last)])
        self._next = last

    def _place(self, now: int, ready: dict[int, _Replica]) -> None:
        """Sessions that moved, then new ones, in the order of their coming."""
        world = self._world
        at = self._at[self._live]
        held = np.bincount(at[at >= 0], minlength=self._number)
        for number, replica in ready.items():
            replica.held = int(held[number])
        homeless = self._live[(at < 0) & (self._away_s[self._live] <= now)]
        if not len(homeless) or not ready:
            return
        loads = {str(k): r.load(world) for k, r in ready.items()}
        placed: Counter[str] = Counter()
        for session in homeless:
            owner = choose(loads, placed, 1)
            assert owner is not None
            moved = self._away_s[session] > 0.0
            patient = now - self._trace.starts[session] < world.patience_s
            if patient and not moved and not has_room(loads[owner], placed[owner], 1):
                self._at[session] = _WAITS
                continue
            placed[owner] += 1
            self._at[session] = int(owner)
        for owner, count in placed.items():
            ready[int(owner)].held += count

    def _relieve(self, now: int, ready: dict[int, _Replica]) -> None:
        """Of each replica that cannot keep up one session goes where there is room."""
        if not any(replica.queue > LATE_S * self._world.capacity for replica in ready.values()):
            return  # none is overloaded
        loads = {str(k): r.load(self._world) for k, r in ready.items()}
        placed: Counter[str] = Counter()
        for number, load in ((k, loads[str(k)]) for k in ready):
            if not overloaded(load):
                continue
            others = {k: v for k, v in loads.items() if k != str(number)}
            owner = choose(others, placed, 1)
            if owner is None or not takes(others[owner], load):
                continue
            here = self._live[self._at[self._live] == number]
            if len(here) < 2:
                continue
            session = here[np.argmax(self._trace.fps[here] * self._trace.duty[here])]
            placed[owner] += 1
            self._at[session] = int(owner)
            self._away_s[session] = now + self._world.move_s
            self.relieved += 1

    def _work(self, now: int, ready: dict[int, _Replica]) -> int:
        """One second of all replicas; sessions that are late."""
        trace, world, live = self._trace, self._world, self._live
        phase = now + trace.phase_s[live]
        active = phase % _PAUSES_S < trace.duty[live] * _PAUSES_S
        asks = active & (phase % trace.asks_s[live] < 1.0)
        frames = trace.fps[live] * active + world.answer * asks
        at = self._at[live]
        away = self._away_s[live] > now
        frames *= ~away
        placed = at >= 0
        late = int(np.sum(~placed | away))
        # All replicas at once: one look at all sessions for each is most of a run's time.
        came = np.bincount(at[placed], frames[placed], minlength=self._number)
        watched = np.bincount(at[placed & ~away & (active | asks)], minlength=self._number)
        for number, replica in ready.items():
            replica.work(float(came[number]), world)
            if replica.queue > world.late_s * world.capacity:
                late += int(watched[number])
        return late


def live_sessions(trace: Trace) -> list[int]:
    """Those that have come and have not ended, for each second of ``trace``."""
    seconds = np.arange(trace.length_s)
    came = np.searchsorted(trace.starts, seconds + 1)
    gone = np.searchsorted(np.sort(trace.ends), seconds, side="right")
    return [int(live) for live in came - gone]


def targets(calls: Sequence[int], policy: Policy, first: int) -> NDArray[np.int64]:
    """Replicas in each second, those that start included, under a policy that looks at calls alone.

    As ``Simulation.run`` has them, thousands of times as fast.

    Args:
        calls: as ``live_sessions`` has them.
        first: replicas at the beginning.

    Returns:
        (len(calls),) numbers of replicas.
    """
    so_far, target, found = list[int](), first, np.empty(len(calls), dtype=int)
    for now, live in enumerate(calls):
        so_far.append(live)
        target = max(1, policy(Seen(now, so_far, [], target)))
        found[now] = target
    return found


def ours() -> Policy:
    """``serve.scaling.Scaler`` with its defaults."""
    scaler = Scaler()
    return lambda seen: scaler.decide(seen.reports, seen.target, float(seen.now_s))


class Default:
    """Ray Serve's own policy: calls over a target, averaged, with its delays (2.60).

    Args:
        per_replica: ``target_ongoing_requests``; each session is a call.
    """

    def __init__(
        self,
        per_replica: float,
        up_s: int = 30,
        down_s: int = 600,
        look_back_s: int = 30,
        push_s: int = 10,
    ) -> None:
        self._per, self._look = per_replica, look_back_s
        self._up, self._down, self._push = up_s, down_s, push_s
        self._since: tuple[int, int] | None = None  # direction, since when
        self._shown = 0.0

    def __call__(self, seen: Seen) -> int:
        """See ``Policy``."""
        if seen.now_s % self._push == 0:
            self._shown = float(np.mean(seen.calls[-self._look :]))
        desired = max(1, int(np.ceil(self._shown / self._per)))
        direction = int(np.sign(desired - seen.target))
        if not direction:
            self._since = None
            return seen.target
        if self._since is None or self._since[0] != direction:
            self._since = direction, seen.now_s
        delay = self._up if direction > 0 else self._down
        if seen.now_s - self._since[1] < delay:
            return seen.target
        self._since = None
        return desired
