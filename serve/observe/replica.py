"""What a replica tells of itself: its engine's figures, its sessions, its store."""

from __future__ import annotations

from actors.placement import Load
from longreel import metrics
from mod.engine.engine import Engine
from serve.observe.instruments import REPLICA, Sample, sample

FRAMES_ACCEPTED = REPLICA.counter(metrics.FRAMES_ACCEPTED)
FRAMES_DROPPED = REPLICA.counter(metrics.FRAMES_DROPPED)
FRAME_LAG = REPLICA.histogram(metrics.FRAME_LAG)
NARRATIONS = REPLICA.counter(metrics.NARRATIONS)
ANSWERS = REPLICA.counter(metrics.ANSWERS)
FIRST_WORD = REPLICA.histogram(metrics.FIRST_WORD)
ANSWER_SECONDS = REPLICA.histogram(metrics.ANSWER_SECONDS)
RECOVERY = REPLICA.histogram(metrics.RECOVERY)
OFFLOADS = REPLICA.counter(metrics.OFFLOADS)
SNAPSHOT_BYTES = REPLICA.counter(metrics.SNAPSHOT_BYTES)
STORE_SECONDS = REPLICA.histogram(metrics.STORE_SECONDS)
STORE_FAILURES = REPLICA.counter(metrics.STORE_FAILURES)
STEP_SECONDS = REPLICA.histogram(metrics.STEP_SECONDS)
STEP_FAILURES = REPLICA.counter(metrics.STEP_FAILURES)


def samples(engine: Engine, capacity: int, load: Load) -> list[Sample]:
    """All that this replica tells.

    Args:
        engine: may be amid a step.
        capacity: bytes that its caches may take.
    """
    did = engine.figures
    return [
        *REPLICA.samples(),
        *(sample(metrics.STEP_TOKENS, n, work=k.name.lower()) for k, n in did.tokens.items()),
        sample(metrics.STEP_BUDGET, engine.step_tokens),
        sample(metrics.STEP_SESSIONS, did.parts),
        sample(metrics.FRAMES_RUN, did.frames_run),
        sample(metrics.FRAMES_KEPT, did.frames_kept),
        sample(metrics.WORDS, did.words),
        sample(metrics.FAILURES, did.failures),
        sample(metrics.EVICTIONS, did.evictions),
        sample(metrics.CACHE_USED, engine.memory.used_bytes),
        sample(metrics.CACHE_CAPACITY, capacity),
        sample(metrics.SESSIONS_HERE, load.sessions),
        sample(metrics.FRAMES_WAITING, load.waiting_frames),
        sample(metrics.QUESTIONS_WAITING, load.waiting_questions),
        sample(metrics.OLDEST, load.lag_s),
        sample(metrics.LIVE_WORK, load.live),
    ]


def store_wrote(what: str, seconds: float, failed: bool) -> None:
    """A write to the state store has ended; ``what`` is ``log`` or ``snapshot``."""
    STORE_SECONDS.labels(what).observe(seconds)
    if failed:
        STORE_FAILURES.labels(what).inc()
