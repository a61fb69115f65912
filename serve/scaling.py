"""How many replicas there shall be: by the work that they report, not by the calls they have.

Nothing here needs Ray, so that it is tested and simulated alone; Ray Serve's controller is sent
this module by value and calls ``ReplicaPolicy`` (2.60).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class Report:
    """What a replica says of its last seconds.

    Attributes:
        live: share of its time that live frames and answers take as fast as they come; above 1
            they come faster than it can deal with them.
        behind_s: seconds of its time that live frames and questions wait for.
        cache: share (0-1) of its cache memory that sessions hold.
        bulk: calls of bulk jobs that it has.
        sessions: in its memory.
        waiting_sessions: new ones that found no room, here or elsewhere: all replicas say the same.
    """

    live: float = 0.0
    behind_s: float = 0.0
    cache: float = 0.0
    bulk: float = 0.0
    sessions: float = 0.0
    waiting_sessions: float = 0.0


@dataclass(frozen=True)
class Aims:
    """What is aimed at.

    Attributes:
        busy: share of a replica's time that live work may take: what comes in bursts needs the
            rest.
        cache: share of cache memory that sessions may hold.
        catch_up_s: within how many seconds what is late shall be done.
        bulk: calls of bulk jobs that keep one replica busy.
        lead_s: how far ahead live work is reckoned where it grows: what a replica needs to start.
        trend_s: over how many seconds it is seen whether it grows.
        trend: growth within ``lead_s``, as a share of live work, below which it is chance.
        hold_s: seconds for which fewer replicas must have been enough before one goes.
        spare: share of what those that stay could do that must be left to them then.
        empty_s: seconds without any work after which the last one goes.
    """

    busy: float = 0.85
    cache: float = 0.85
    catch_up_s: float = 10.0
    bulk: float = 2.0
    lead_s: float = 45.0
    trend_s: float = 60.0
    trend: float = 0.15
    hold_s: float = 300.0
    spare: float = 0.05
    empty_s: float = 300.0


def wanted(reports: Sequence[Report], aims: Aims, growth: float = 0.0) -> float:
    """Replicas that all that is reported would keep as busy as is aimed at; a broken number.

    Live work and bulk jobs share replicas, live first: a job fills what is left of them.

    Args:
        growth: of live work until a replica that is started now would be there.
    """
    live = sum(report.live for report in reports)
    cache = sum(report.cache for report in reports)
    bulk = sum(report.bulk for report in reports) / aims.bulk
    sessions = sum(report.sessions for report in reports)
    waiting = max((report.waiting_sessions for report in reports), default=0.0)
    more = waiting / sessions if sessions else 0.0
    # Sessions stay where they are: what one replica is behind with, others can do little about.
    behind = sum(min(1.0, report.behind_s / aims.catch_up_s) for report in reports) / 2
    live += max(growth, more * live)
    need = max(live / aims.busy + behind, (1.0 + more) * cache / aims.cache, bulk)
    if waiting:
        # Whoever waits found all replicas full.
        need = max(need, len(reports) + 1.0)
    # Even sessions in which nothing happens rest somewhere.
    return max(need, 1e-6) if sessions else need


@dataclass
class Scaler:
    """Decides at each look how many replicas there shall be.

    More are wanted at once, fewer only after they were enough for a while: a replica that comes
    costs its time, one that goes costs its sessions a move.
    """

    aims: Aims = field(default_factory=Aims)
    _past: deque[tuple[float, float]] = field(default_factory=deque)
    _needs: deque[tuple[float, float]] = field(default_factory=deque)
    _heard: int = 0

    def decide(self, reports: Sequence[Report], target: int, now_s: float) -> int:
        """The new target; whoever asks keeps it in bounds.

        Args:
            reports: of the replicas that run; of one that is just there it may be missing.
            target: how many were wanted before; some of them may still be starting.
            now_s: on any clock.
        """
        if not reports:
            # None runs, or nothing is known: no reason to end any.
            self._needs.clear()
            return target
        need = wanted(reports, self.aims, self._growth(reports, now_s))
        most = self._most(need, now_s)
        if need > target:
            return math.ceil(need)
        hold = self.aims.hold_s if most else self.aims.empty_s
        if now_s - self._needs[0][0] < hold:
            return target
        return min(target, max(math.ceil(most / (1.0 - self.aims.spare)), 1 if most else 0))

    def _most(self, need: float, now_s: float) -> float:
        """The most that was needed of late."""
        self._needs.append((now_s, need))
        length = self.aims.hold_s if any(n for _, n in self._needs) else self.aims.empty_s
        while len(self._needs) > 1 and now_s - self._needs[1][0] >= length:
            self._needs.popleft()
        return max(n for _, n in self._needs)

    def _growth(self, reports: Sequence[Report], now_s: float) -> float:
        """What live work will have grown by in ``lead_s``, if it goes on as it does."""
        live = sum(report.live for report in reports)
        if self._past and len(reports) > self._heard:
            before = self._past[-1][1]
            alike = (len(reports) - self._heard) * before / self._heard
            if live - before > 0.5 * alike:
                # New replicas have nothing to do: these were busy before they were heard of, as
                # when the controller begins anew.
                self._past.clear()
        self._heard = len(reports)
        self._past.append((now_s, live))
        while now_s - self._past[0][0] > self.aims.trend_s:
            self._past.popleft()
        if now_s - self._past[0][0] < self.aims.trend_s / 4:
            return 0.0
        slope = _slope(self._past)
        growth = slope * self.aims.lead_s
        # A few sessions that come and go are no trend.
        return min(live, growth) if growth > self.aims.trend * live else 0.0


def _slope(points: Iterable[tuple[float, float]]) -> float:
    """Of the line through ``points`` that fits them best."""
    xs, ys = zip(*points, strict=True)
    x0, y0 = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - x0) ** 2 for x in xs)
    return sum((x - x0) * (y - y0) for x, y in zip(xs, ys, strict=True)) / spread if spread else 0.0


class ReplicaPolicy:
    """``Scaler`` as Ray Serve wants an autoscaling policy; it keeps the bounds itself.

    Args:
        every_s: seconds between two decisions: the controller asks ten times a second.
        aims: fields of ``Aims`` that are not to be their defaults.
    """

    def __init__(self, every_s: float = 1.0, **aims: float) -> None:
        self._scaler, self._every_s = Scaler(Aims(**aims)), every_s
        self._decided_s = -math.inf

    def __call__(self, ctx: Any) -> tuple[float, dict[str, Any]]:
        """The target for ``ctx``, a ``ray.serve.config.AutoscalingContext``."""
        target, now_s = ctx.target_num_replicas, ctx.current_time
        if now_s < self._decided_s:
            # The clock was set back: nothing that was noted can be set against it.
            self._scaler = Scaler(self._scaler.aims)
        elif now_s - self._decided_s < self._every_s:
            return target, ctx.policy_state
        self._decided_s = now_s
        wanted = self._scaler.decide(reports_of(ctx.raw_metrics or {}), target, now_s)
        return wanted, ctx.policy_state


def reports_of(metrics: Mapping[str, Mapping[Any, Sequence[Any]]]) -> list[Report]:
    """Each replica's last report.

    Args:
        metrics: by name and replica, values with a ``value`` each, oldest first.
    """
    names = [f.name for f in fields(Report)]
    replicas = {replica for name in names for replica in metrics.get(name, ())}
    found = []
    for replica in replicas:
        last = {}
        for name in names:
            series = metrics.get(name, {}).get(replica)
            if series:
                last[name] = float(series[-1].value)
        found.append(Report(**last))
    return found
