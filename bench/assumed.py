"""What the simulated job assumes: the library, the cluster, and how the job is laid out."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.keyframes import PER_SEGMENT

#: A picture 320 wide at a JPEG's usual quality.
JPEG_BYTES = 12_000
#: What the ledger counts for a row.
ROW_BYTES = PER_SEGMENT * JPEG_BYTES + 1024


@dataclass(frozen=True)
class Costs:
    """Seconds of one process's time; ``bench.costs`` measures them.

    Attributes:
        probe_s: probing a video, without storage's delays.
        plan_segment_s: the driver takes a planned segment from its task, writes it, and puts it
            into a batch.
        plan_arrow_s: the same where rows stay in Arrow tables.
        batch_s: the driver hands a batch to an actor and takes its result.
        watch_s: the driver looks whether one of the batches in flight is done.
        begin_s: the ledger counts an attempt.
        add_s: the ledger takes a row.
        write_s: the ledger writes a file, for each row in it.
        scan_s: a reducer reads a segment row, its own or another's.
        actor_start_s: an actor is ready, counted from its process's start.
        decode_s: an actor decodes a second of video.
    """

    probe_s: float
    plan_segment_s: float
    plan_arrow_s: float
    batch_s: float
    watch_s: float
    begin_s: float
    add_s: float
    write_s: float
    scan_s: float
    actor_start_s: float
    decode_s: float


@dataclass(frozen=True)
class World:
    """The library and the cluster: nothing of this can be measured on one machine.

    Lengths and speeds are lognormal; a ``_spread`` is the standard deviation of the logarithm.
    """

    hours: float = 10_000.0
    #: Lectures, matches, cameras: a median of ten minutes, one in a hundred over two hours.
    mean_minutes: float = 20.0
    length_spread: float = 1.2
    #: x264's default: a keyframe every 250 pictures at most, more where scenes change.
    longest_gop_s: float = 8.3
    fps: float = 2.0
    segment_s: float = 30.0
    #: 4 Mbit/s, a usual 720p.
    bytes_per_s: float = 500_000.0
    #: Two pictures a second of 384 x 384 RGB go from actor to replica.
    frame_bytes_per_s: float = 2 * 384 * 384 * 3.0
    #: A node: one GPU with one replica, and twelve cores that decode (``--workers`` is set so).
    actors_per_node: int = 12
    #: 200 frames/s on one GPU for an 8B model. A slower one makes the rest easier.
    model_s_per_s: float = 0.01
    #: Asking the model for about a hundred words.
    summary_s: float = 1.0
    node_spread: float = 0.1
    content_spread: float = 0.3
    #: One node in two hundred runs at a third of its speed.
    straggler_share: float = 0.005
    straggler_speed: float = 1 / 3
    #: 10 Gbit/s a node; 800 Gbit/s for the store, whose vendors speak of more.
    node_bytes_s: float = 1.25e9
    store_bytes_s: float = 100e9
    #: S3's guide gives 100 to 200 ms to a first byte; header, index and three 4 MiB ranges.
    round_trip_s: float = 0.1
    round_trips: int = 5
    #: Ray's own release test of 10 000 actors starts 389 a second.
    actors_started_per_s: float = 400.0
    #: Weights of an 8B model from a disk nearby; the service comes up while videos are probed.
    replica_start_s: float = 60.0


@dataclass(frozen=True)
class Layout:
    """How the job uses the cluster; the default is what the code does.

    Attributes:
        nodes_per_ledger: 0 keeps one ledger; else videos are dealt over several.
        arrow_plan: planned rows stay in Arrow tables on their way through the driver.
        nodes_per_cell: 0 keeps one driver; else videos are dealt over cells that each run the
            whole job with a driver of their own.
    """

    nodes_per_ledger: int = 0
    arrow_plan: bool = False
    nodes_per_cell: int = 0


#: Each adds one change to the one before.
LAYOUTS = {
    "as it is": Layout(),
    "several ledgers": Layout(16),
    "plan in Arrow": Layout(16, True),
    "several drivers": Layout(16, True, 50),
}
