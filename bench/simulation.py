"""A discrete-event simulation of a summarization job on many nodes; no Ray, no clock.

It follows the code: ``pipelines.claimed`` for the phases, ``pipelines.worker`` for what an actor
does with a batch, ``actors.rowfiles`` for when the ledger stops to write. Left out: failures,
the cost of Serve's own routers and controller, and that replicas answer several calls at once.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from functools import lru_cache
from heapq import heapify, heapreplace

import numpy as np

from actors.rowfiles import MAX_BYTES
from actors.segments import plan_segments
from bench.assumed import ROW_BYTES, Costs, Layout, World
from bench.segment_pass import Cluster, SegmentPass
from pipelines.passes import in_batches
from pipelines.reduce import FAN_IN

#: As in ``pipelines``: videos probed by a task, segments and videos in a batch at most.
_PROBED, _BATCH, _REDUCED = 8, 16, 64

#: Segments of one video, in seconds each.
Video = tuple[float, ...]


@dataclass(frozen=True)
class _Info:
    duration_s: float
    keyframes_s: tuple[float, ...]


@lru_cache(maxsize=1)
def library(world: World, seed: int) -> tuple[Video, ...]:
    """Videos of ``world.hours`` in all, cut by the planner."""
    draw = np.random.default_rng(seed)
    middle = math.log(world.mean_minutes * 60) - world.length_spread**2 / 2
    left, videos = world.hours * 3600, []
    while left > 0:
        length = min(left, max(1.0, draw.lognormal(middle, world.length_spread)))
        left -= length
        gaps = draw.uniform(0.5, world.longest_gop_s, int(length / 0.5) + 1)
        keyframes = np.cumsum(gaps) - gaps[0]
        info = _Info(length, tuple(keyframes[keyframes < length].tolist()))
        cuts = plan_segments(info, world.fps, world.segment_s)
        videos.append(tuple(cut.end_s - cut.start_s for cut in cuts))
    return tuple(videos)


@dataclass(frozen=True)
class Result:
    """What a simulated job took.

    Attributes:
        ideal_s: all work spread over all nodes, each busy from first to last: what the model
            takes, or decoding with storage's delays where that is more.
        phases_s: seconds of each phase; where there are cells, of the one that ended last.
        tail_s: for how long the mean actor has had nothing to do when the pass over segments
            ends.
        busy: share of the whole time in which each resource works; of several drivers, ledgers
            or cells the busiest.
        rows: how often each segment's row was taken.
    """

    nodes: int
    ideal_s: float
    total_s: float
    phases_s: dict[str, float]
    tail_s: float
    busy: dict[str, float]
    rows: list[int] = field(repr=False)

    @property
    def efficiency(self) -> float:
        """Ideal time over simulated time."""
        return self.ideal_s / self.total_s

    @property
    def bottleneck(self) -> str:
        """The resource that works for the largest share of the time."""
        return max(self.busy, key=lambda name: self.busy[name])


def simulate(world: World, costs: Costs, layout: Layout, nodes: int, seed: int) -> Result:
    """The job on ``nodes`` nodes; the same seed gives the same result."""
    draw = np.random.default_rng((seed, nodes))
    speeds = draw.lognormal(-(world.node_spread**2) / 2, world.node_spread, nodes)
    speeds[draw.random(nodes) < world.straggler_share] *= world.straggler_speed
    n = -(-nodes // layout.nodes_per_cell) if layout.nodes_per_cell else 1
    dealt: list[list[Video]] = [[] for _ in range(n)]
    # An object's size is known before it is probed; it stands for its length.
    for place, video in enumerate(sorted(library(world, seed), key=sum, reverse=True)):
        lap, at = divmod(place, n)
        dealt[n - 1 - at if lap % 2 else at].append(video)
    cells = []
    for i, videos in enumerate(dealt):
        # Sources come by name, not by length.
        random.Random(f"{seed} {i}").shuffle(videos)
        mine = speeds[i::n].tolist()
        ledgers = -(-len(mine) // layout.nodes_per_ledger) if layout.nodes_per_ledger else 1
        cluster = Cluster(world, costs, mine, ledgers, len(mine) / nodes)
        cells.append(_Cell(cluster, layout, videos, (seed, nodes, i)))
        cells[-1].run()
    last = max(cells, key=lambda cell: cell.now)
    capacity = float(speeds.sum())
    decoding_s = sum(cell.decoding_s for cell in cells) / (capacity * world.actors_per_node)
    model_s = world.hours * 3600 * world.model_s_per_s / capacity
    return Result(
        nodes=nodes,
        ideal_s=max(decoding_s, model_s),
        total_s=last.now,
        phases_s=last.phases_s,
        tail_s=last.tail_s,
        busy={name: max(cell.busy_s[name] for cell in cells) / last.now for name in last.busy_s},
        rows=[taken for cell in cells for taken in cell.rows],
    )


class _Cell:
    """One driver's job."""

    def __init__(
        self, cluster: Cluster, layout: Layout, videos: list[Video], seed: tuple[int, ...]
    ) -> None:
        self._cluster, self._layout, self._videos, self._seed = cluster, layout, videos, seed
        self.now = 0.0
        self.phases_s: dict[str, float] = {}
        self.busy_s: dict[str, float] = {}
        self.tail_s = 0.0
        self.decoding_s = 0.0
        self.rows: list[int] = []

    def run(self) -> None:
        """All phases, one after the other."""
        for name, phase in (
            ("plan", self._plan),
            ("segments", self._narrate),
            ("videos", self._reduce),
        ):
            begun = self.now
            phase()
            self.phases_s[name] = self.now - begun
        cluster = self._cluster
        nodes = len(cluster.speeds)
        self.busy_s |= {
            "driver": cluster.driver.busy,
            "ledger": max(ledger.busy for ledger in cluster.ledgers),
            "store": cluster.store.busy,
            "links": sum(link.busy for link in cluster.links) / nodes,
            "model": sum(replica.busy for replica in cluster.replicas) / nodes,
        }

    def _plan(self) -> None:
        """Probing in tasks of a few videos; then the driver handles each segment's row."""
        world, costs = self._cluster.world, self._cluster.costs
        tasks = -(-len(self._videos) // _PROBED)
        task_s = _PROBED * (costs.probe_s + world.round_trips * world.round_trip_s)
        handed = self._cluster.driver.serve(0.0, tasks * costs.batch_s)
        probed = max(handed + task_s, -(-tasks // self._cluster.n_actors) * task_s)
        row_s = costs.plan_arrow_s if self._layout.arrow_plan else costs.plan_segment_s
        planned = self._cluster.driver.serve(probed, row_s * sum(map(len, self._videos)))
        self.now = max(planned, world.replica_start_s)

    def _batches(self, n: int) -> list[tuple[int, int]]:
        """Segments [first, end) of each batch."""
        batches = in_batches(range(n), self._cluster.n_actors, largest=_BATCH)
        return [(batch[0], batch[-1] + 1) for batch in batches]

    def _narrate(self) -> None:
        """The pass over segments."""
        cluster, world = self._cluster, self._cluster.world
        lengths = [length for video in self._videos for length in video]
        n_ledgers = len(cluster.ledgers)
        ledger_of = [i % n_ledgers for i, video in enumerate(self._videos) for _ in video]
        spread = world.content_spread
        draw = np.random.default_rng(self._seed)
        content = draw.lognormal(-(spread**2) / 2, spread, len(lengths))
        waits_s = world.round_trips * world.round_trip_s
        decode_s = np.asarray(lengths) * content * cluster.costs.decode_s + waits_s
        self.decoding_s = float(decode_s.sum())
        batches = self._batches(len(lengths))
        work = SegmentPass(
            cluster, lengths, decode_s.tolist(), ledger_of, batches, repr(self._seed)
        )
        ended = work.run(self.now)
        self.tail_s, self.rows = work.tail_s(), work.rows
        self.busy_s["actors"] = work.actors_busy / cluster.n_actors
        self.now = max(ledger.flush(ended) for ledger in cluster.ledgers)

    def _reduce(self) -> None:
        """The second pass: read the rows, have every few summarized, write one row a video."""
        cluster, world, costs = self._cluster, self._cluster.world, self._cluster.costs
        n_ledgers = len(cluster.ledgers)
        n_rows = len(self.rows)
        batches = []
        for ledger in range(n_ledgers):
            dealt = self._videos[ledger::n_ledgers]
            for mine in in_batches(dealt, cluster.n_actors, largest=_REDUCED):
                # Rows come about in the order of the plan: whole files, two of them cut.
                own = sum(map(len, mine)) + 2 * MAX_BYTES // ROW_BYTES
                batches.append((ledger, min(n_rows, own), mine))
        n = min(len(batches), cluster.n_actors)
        ready = self.now + costs.actor_start_s
        more = ready + costs.actor_start_s
        free = [(more + i / cluster.started_per_s if i else ready, i) for i in range(n)]
        heapify(free)
        worked_s = 0.0
        for ledger, rows, videos in batches:
            begun, reducer = free[0]
            handed = cluster.driver.serve(begun, costs.batch_s)
            speed = cluster.speeds[reducer % len(cluster.speeds)]
            read = cluster.store.serve(handed, rows * ROW_BYTES / cluster.store_bytes_s)
            done = max(read, handed + rows * costs.scan_s / speed)
            done += sum(_answers(len(video)) for video in videos) * world.summary_s
            done += len(videos) * costs.add_s
            cluster.ledgers[ledger].busy += len(videos) * costs.add_s
            worked_s += done - handed
            heapreplace(free, (done, reducer))
            self.now = max(self.now, done)
        self.busy_s["reducers"] = worked_s / max(n, 1)


def _answers(leaves: int) -> int:
    """Answers of the model that a video's summary waits for, one after the other."""
    answers = 0
    while leaves > 1:
        leaves = -(-leaves // FAN_IN)
        answers += leaves
    return answers
