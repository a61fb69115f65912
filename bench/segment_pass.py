"""The simulated pass over segments, event by event: driver, actors, ledger, store and replicas."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from heapq import heappop, heappush
from itertools import count

from actors.rowfiles import FIRST_AGE_S, LAST_AGE_S, MAX_BYTES, MAX_ROWS
from bench.assumed import ROW_BYTES, Costs, World

#: Batches that Ray Data hands to an actor ahead.
_IN_FLIGHT = 2
#: What happens next: the driver is done with a round, an actor is ready, begins a segment, reads
#: it, has decoded it, has its answer, has a batch done.
_ROUND, _READY, _BEGIN, _READ, _DECODED, _ANSWERED, _DONE = range(7)


class Server:
    """Serves one request after the other, in the order in which they come."""

    def __init__(self) -> None:
        self.free, self.busy = 0.0, 0.0

    def serve(self, now: float, seconds: float) -> float:
        """When a request that comes now is done."""
        self.free = (now if now > self.free else self.free) + seconds
        self.busy += seconds
        return self.free


class LedgerServer(Server):
    """Stops to write as ``actors.rowfiles.RowFiles`` does."""

    def __init__(self, costs: Costs, world: World) -> None:
        super().__init__()
        self._costs, self._world = costs, world
        self._limit = min(MAX_ROWS, MAX_BYTES / ROW_BYTES)
        self._rows, self._since, self._max_age = 0, 0.0, FIRST_AGE_S

    def add(self, now: float) -> float:
        """When a row that comes now is taken."""
        begun = max(now, self.free)
        if not self._rows:
            self._since = begun
        self._rows += 1
        done = self.serve(now, self._costs.add_s)
        if self._rows >= self._limit or begun - self._since >= self._max_age:
            done = self.flush(done)
            self._max_age = min(LAST_AGE_S, 2 * self._max_age)
        return done

    def flush(self, now: float) -> float:
        """When all rows taken are written."""
        if not self._rows:
            return max(now, self.free)
        rows, self._rows = self._rows, 0
        return self.serve(now, rows * self._costs.write_s + self._world.round_trip_s)


class Cluster:
    """What the nodes of one driver share, and their speeds.

    Attributes:
        store_bytes_s, started_per_s: this driver's share of the store and of the control plane.
    """

    def __init__(
        self, world: World, costs: Costs, speeds: Sequence[float], ledgers: int, share: float
    ) -> None:
        self.world, self.costs, self.speeds = world, costs, speeds
        self.n_actors = len(speeds) * world.actors_per_node
        self.store_bytes_s = world.store_bytes_s * share
        self.started_per_s = world.actors_started_per_s * share
        self.driver, self.store = Server(), Server()
        self.ledgers = [LedgerServer(costs, world) for _ in range(ledgers)]
        self.links = [Server() for _ in speeds]
        self.replicas = [Server() for _ in speeds]


class SegmentPass:
    """Segments through decoding actors and replicas, as ``pipelines.worker`` has it.

    Args:
        lengths: of the segments, in seconds of video.
        decode_s: to fetch and decode each on a node of speed one.
        ledger_of: number of the ledger that takes each one's row.
        batches: segments [first, end) of each, in the order in which the driver hands them out.

    Attributes:
        rows: how often each segment's row was taken.
        actors_busy: seconds in which actors read and decoded.
    """

    def __init__(
        self,
        cluster: Cluster,
        lengths: Sequence[float],
        decode_s: Sequence[float],
        ledger_of: Sequence[int],
        batches: Sequence[tuple[int, int]],
        seed: str,
    ) -> None:
        self._cluster, self._lengths, self._decode_s = cluster, lengths, decode_s
        self._ledger_of, self._left = ledger_of, deque(batches)
        self._draw = random.Random(seed)
        n = cluster.n_actors
        self._heap: list[tuple[float, int, int, int]] = []
        self._order = count()
        #: Of each actor: batches it holds, its segment and its batch's end; the segment that the
        #: model was last asked about (or -1) and when the answer comes; the one it waits for.
        self._held: list[deque[tuple[int, int]]] = [deque() for _ in range(n)]
        self._at, self._end = [0] * n, [0] * n
        self._answer_at: list[float] = [0.0] * n
        self._asked, self._taking = [-1] * n, [-1] * n
        self._idle = [True] * n
        self._idle_since: list[float] = []
        self._slots: deque[int] = deque()
        self._granted: list[int] = []
        self._driver_busy = False
        self._in_flight = 0
        self.rows = [0] * len(lengths)
        self.actors_busy = self.ended = 0.0

    def run(self, now: float) -> float:
        """When the last row is taken, if the pass begins now."""
        cluster = self._cluster
        self._idle_since = [now] * cluster.n_actors
        first = now + cluster.costs.actor_start_s
        # Ray Data begins with one actor and asks for the others once that one has work.
        for actor in range(cluster.n_actors):
            more = cluster.costs.actor_start_s + actor / cluster.started_per_s
            self._push(first + more if actor else first, _READY, actor)
        handlers = {
            _ROUND: self._hand_out,
            _READY: self._ready,
            _BEGIN: self._begin,
            _READ: self._read,
            _DECODED: self._decoded,
            _ANSWERED: self._answered,
            _DONE: self._done,
        }
        calls = [handlers[kind] for kind in range(len(handlers))]
        heap = self._heap
        while heap:
            now, _, kind, actor = heappop(heap)
            # Actors that come up after all has been handed out hold nobody up.
            if kind != _READY or self._left:
                calls[kind](now, actor)
        self.ended = max(self._idle_since)
        return self.ended

    def tail_s(self) -> float:
        """How long the mean actor has had nothing to do when the last one ends."""
        return self.ended - sum(self._idle_since) / len(self._idle_since)

    def _push(self, at: float, kind: int, actor: int) -> None:
        heappush(self._heap, (at, next(self._order), kind, actor))

    def _ready(self, now: float, actor: int) -> None:
        self._idle_since[actor] = now
        self._slots.extend([actor] * _IN_FLIGHT)
        self._begin_round(now)

    def _done(self, now: float, actor: int) -> None:
        self._in_flight -= 1
        self._slots.append(actor)
        self._begin_round(now)
        self._next_batch(now, actor)

    def _begin_round(self, now: float) -> None:
        """The driver's loop: everything that has come meanwhile, in one round."""
        if self._driver_busy or not self._slots:
            return
        costs = self._cluster.costs
        self._granted, n = list(self._slots), len(self._slots)
        self._slots.clear()
        self._driver_busy = True
        seconds = n * costs.batch_s + self._in_flight * costs.watch_s
        self._push(self._cluster.driver.serve(now, seconds), _ROUND, 0)

    def _hand_out(self, now: float, _unused: int) -> None:
        self._driver_busy = False
        # As Ray Data does: the next batch goes to an actor that has fewest.
        has = {actor: len(self._held[actor]) + (not self._idle[actor]) for actor in self._granted}
        ranked = []
        for actor in self._granted:
            ranked.append((has[actor], actor))
            has[actor] += 1
        for _, actor in sorted(ranked):
            if not self._left:
                break
            self._in_flight += 1
            self._held[actor].append(self._left.popleft())
            if self._idle[actor]:
                self._next_batch(now, actor)
        self._begin_round(now)

    def _next_batch(self, now: float, actor: int) -> None:
        held = self._held[actor]
        self._idle[actor] = not held
        if held:
            self._at[actor], self._end[actor] = held.popleft()
            self._push(now, _BEGIN, actor)
        else:
            self._idle_since[actor] = now

    def _begin(self, now: float, actor: int) -> None:
        ledger = self._cluster.ledgers[self._ledger_of[self._at[actor]]]
        self._push(ledger.serve(now, self._cluster.costs.begin_s), _READ, actor)

    def _read(self, now: float, actor: int) -> None:
        cluster, world, segment = self._cluster, self._cluster.world, self._at[actor]
        node = actor // world.actors_per_node
        size = self._lengths[segment] * world.bytes_per_s
        sent = cluster.store.serve(now, size / cluster.store_bytes_s)
        came = cluster.links[node].serve(now, size / world.node_bytes_s)
        seconds = self._decode_s[segment] / cluster.speeds[node]
        self.actors_busy += seconds
        self._push(max(sent, came) + seconds, _DECODED, actor)

    def _decoded(self, now: float, actor: int) -> None:
        """Frames go to the less busy of two replicas; the answer before is waited for."""
        cluster, world, segment = self._cluster, self._cluster.world, self._at[actor]
        node = actor // world.actors_per_node
        length = self._lengths[segment]
        arrives = cluster.links[node].serve(
            now, length * world.frame_bytes_per_s / world.node_bytes_s
        )
        replicas, n = cluster.replicas, len(cluster.replicas)
        one, other = int(self._draw.random() * n), int(self._draw.random() * n)
        chosen = one if replicas[one].free <= replicas[other].free else other
        seconds = length * world.model_s_per_s / cluster.speeds[chosen]
        answer_at = replicas[chosen].serve(arrives, seconds)
        self._at[actor] += 1
        if self._asked[actor] < 0:
            self._asked[actor], self._answer_at[actor] = segment, answer_at
            self._go_on(now, actor)
        else:
            self._wait_for(now, actor)
            self._asked[actor], self._answer_at[actor] = segment, answer_at

    def _answered(self, now: float, actor: int) -> None:
        segment = self._taking[actor]
        self.rows[segment] += 1
        taken = self._cluster.ledgers[self._ledger_of[segment]].add(now)
        self._go_on(taken, actor)

    def _go_on(self, now: float, actor: int) -> None:
        """The next segment; at the batch's end the last answer, then the next batch."""
        if self._at[actor] < self._end[actor]:
            self._push(now, _BEGIN, actor)
        elif self._asked[actor] >= 0:
            self._wait_for(now, actor)
            self._asked[actor] = -1
        else:
            self._push(now, _DONE, actor)

    def _wait_for(self, now: float, actor: int) -> None:
        self._taking[actor] = self._asked[actor]
        self._push(max(now, self._answer_at[actor]), _ANSWERED, actor)
