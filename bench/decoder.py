"""The decoding half of a job's worker alone: an actor imports this and no more of the bench."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pyarrow as pa
import ray

from actors.decode import decode_planned
from bench.harness import most_resident_bytes

#: Height and width of the pictures.
SIDE = 384


class Decoder:
    """Frames go to the object store, counts come back."""

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """A row per segment: the process, its peak memory so far, and how many frames."""
        for planned in batch.to_pylist():
            decoded = decode_planned(planned, SIDE, thumbnail_width=0)
            ray.put(decoded.frames)
            row = {"pid": os.getpid(), "frames": len(decoded.indices)}
            yield pa.Table.from_pylist([row | {"peak": most_resident_bytes()}])
