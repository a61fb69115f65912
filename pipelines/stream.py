"""``--mode stream``: an actor that takes a video's segments in order through one stream."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import cached_property, partial
from typing import Any

import pyarrow as pa
import ray
from ray.actor import ActorHandle
from ray.serve.handle import DeploymentHandle, DeploymentResponse

from actors.decode import DecodedSegment
from actors.objects import delete_object, join_uri, read_bytes, write_bytes
from longreel.errors import LongreelError, StorageError
from pipelines.asking import UNAVAILABLE, answer, replicas_once_ready
from pipelines.worker import WorkOrder, hand_over, segment_row, wanted_of
from serve.narrated import Narrated
from serve.observe.traces import flush

#: Seconds between two states that are kept for a run after this one.
SAVE_EVERY_S = 30.0


class StreamWorker:
    """Decodes a video's segments and has the model follow them, each with the state of the last.

    The next segment is decoded while the model has the one before. Any replica can take any
    segment, since the state travels with it. A state is kept beside the rows now and then, with
    all rows before it written; a later run goes on from there, and what has rows after it is
    watched again without being written again.

    Args:
        ledger: takes the finished rows.
    """

    def __init__(self, order: WorkOrder, ledger: ActorHandle) -> None:
        self._order = order
        self._ledger = ledger

    @cached_property
    def _replica(self) -> DeploymentHandle:
        return replicas_once_ready(self._ledger)

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Work on all PLAN rows of one video in order; yields the DONE row of each.

        Raises:
            LongreelError: there is no replica: going on would leave a hole in the stream.
        """
        plan = batch.to_pylist()
        kept = _Kept(self._order.output, plan[0]["video_id"])
        ids = [planned["segment_id"] for planned in plan]
        lacking = ray.get(self._ledger.lacking.remote(ids))
        if not lacking:
            return
        begin, state = kept.read(latest=min(ids.index(one) for one in lacking))
        saved_at = time.monotonic()
        decoded = self._decode(plan[begin], self._deaths(plan[begin]))
        for number in range(begin, len(plan)):
            planned, current, before = plan[number], decoded, state
            following = plan[number + 1] if number + 1 < len(plan) else None
            began_ns = time.time_ns()
            response = self._follow(current, before) if len(current.indices) else None
            deaths = self._deaths(following) if following else 0
            if following and not deaths:
                decoded = self._decode(following, deaths)
            narrated: Narrated | None = None
            error = None
            if response is not None:
                said, error = answer(response, partial(self._follow, current, before))
                if said is not None:
                    narrated, state = said
                elif error and error.startswith(UNAVAILABLE):
                    raise LongreelError(f"{planned['uri']} at {planned['start_s']:.1f} s: {error}")
            if attempt := ray.get(self._ledger.begin.remote(planned["segment_id"])):
                row = segment_row(planned, current, narrated, error, self._order.provenance)
                self._order.trace(row, began_ns)
                yield hand_over(row | {"attempt": attempt}, self._ledger)
            if following and deaths:
                # What ended its process once may do so again: not before this row is safe.
                decoded = self._decode(following, deaths)
            if state is not None and time.monotonic() - saved_at >= SAVE_EVERY_S:
                ray.get(self._ledger.flush.remote())
                kept.write(number + 1, state)
                saved_at = time.monotonic()
        ray.get(self._ledger.flush.remote())
        kept.delete()
        flush()

    def _deaths(self, planned: dict[str, Any]) -> int:
        deaths: int = ray.get(self._ledger.enter.remote(planned["segment_id"]))
        return deaths

    def _decode(self, planned: dict[str, Any], deaths: int) -> DecodedSegment:
        # Of what has its row, too: one that failed this way was not seen when the next was told.
        return self._order.decode(planned, self._ledger, deaths)

    def _follow(self, decoded: DecodedSegment, state: bytes | None) -> DeploymentResponse:
        recipe, instruction = self._order.recipe, self._order.instruction
        return self._replica.follow.remote(
            decoded.frames,
            instruction,
            recipe.silence_threshold,
            state,
            recipe.fps,
            wanted=wanted_of(recipe),
        )


class _Kept:
    """The state of one video's stream that a later run goes on from."""

    def __init__(self, output: str, video_id: str) -> None:
        self._uri = join_uri(output, "_longreel", "streams", f"{video_id}.state")

    def read(self, latest: int) -> tuple[int, bytes | None]:
        """Index of the segment to go on with, at most ``latest``, and the state before it.

        A state after ``latest`` is kept no longer: rows before it have been taken out since, and
        it knows nothing of those that will be made in their place.
        """
        try:
            number, _, state = read_bytes(self._uri).partition(b"\n")
            index = int(number)
        except StorageError as failure:
            if failure.kind != "NotFound":
                raise
            return 0, None
        if index <= latest:
            return index, state
        self.delete()
        return 0, None

    def write(self, index: int, state: bytes) -> None:
        """Keep the state before segment ``index``."""
        write_bytes(self._uri, b"%d\n" % index + state)

    def delete(self) -> None:
        """Keep nothing."""
        delete_object(self._uri)
