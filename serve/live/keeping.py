"""Snapshots of a replica's sessions: when one is due, and how it comes into the state store."""

from __future__ import annotations

import asyncio
import secrets
import time

from actors.statestore import StateStore
from serve.live.directory import DirectoryCalls
from serve.live.session import LiveSession
from serve.observe import replica as observed

#: Frames after which a session is kept anew; of one that forgets nothing, as many as half of
#: what it has, so that all its snapshots together grow with its length and not with its square.
KEEP_FRAMES = 64


def due(session: LiveSession) -> bool:
    """Whether a session has grown so much that it should be kept anew."""
    if session.transcript.waiting:
        return False
    if session.epoch > 1 and not session.snapshot_seq and session.counters.seq:
        # Taken over: what lost owners logged can go when this one needs it no more.
        return True
    new = session.counters.frames - session.snapshot_frames
    least = KEEP_FRAMES
    if session.options.memory != "window":
        least = max(least, session.snapshot_frames // 2)
    return new >= least


async def keep(
    session: LiveSession, store: StateStore, directory: DirectoryCalls, *, in_memory: bool
) -> bool:
    """Write a snapshot and let the directory know; whether that was done.

    Args:
        in_memory: whether the session goes on here; otherwise it takes nothing in any more.

    Raises:
        StorageError: the store took no snapshot.
    """
    taken = await session.snapshot(leaving=not in_memory)
    if taken is None:
        return False
    data, counts = taken
    name = f"snapshot-{session.epoch}-{counts['seq']}-{secrets.token_hex(3)}"
    started, failed = time.perf_counter(), True
    try:
        await asyncio.to_thread(store.write_snapshot, session.id, name, data)
        failed = False
    finally:
        observed.store_wrote("snapshot", time.perf_counter() - started, failed)
    observed.SNAPSHOT_BYTES.inc(len(data))
    if not await directory.kept(session.life, session.epoch, name, counts, in_memory=in_memory):
        await asyncio.to_thread(store.delete_snapshot, session.id, name)
        return False
    session.snapshot_seq, session.snapshot_frames = counts["seq"], counts["frames"]
    return True
