"""The decoding actor of a summarization job: plan row in, segment row to the ledger."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import ray
from ray.actor import ActorHandle
from ray.serve.handle import DeploymentHandle, DeploymentResponse

from actors.deaths import MOST_DEATHS, died
from actors.decode import DecodedSegment, decode_planned, nothing_decoded
from longreel.schemas import FAILED
from pipelines.asking import answer, replicas_once_ready
from pipelines.ids import Recipe
from pipelines.keyframes import PER_SEGMENT, choose
from serve.narrated import Narrated
from serve.observe.ids import Ids
from serve.observe.traces import flush, record
from serve.served import Served

DONE = pa.schema([("segment_id", pa.string()), ("status", pa.string())])


@dataclass(frozen=True)
class WorkOrder:
    """What every segment of a job shares.

    Attributes:
        output: folder or prefix of the job.
        image_size: side of the model's pictures, in pixels.
        provenance: the provenance columns of a row, and ``job_id``.
        span: of the job; those of its segments belong under it.
    """

    output: str
    recipe: Recipe
    instruction: str
    image_size: int
    provenance: dict[str, Any]
    span: Ids | None = None

    def decode(self, planned: dict[str, Any], ledger: ActorHandle, deaths: int) -> DecodedSegment:
        """The pictures of one PLAN row; none where that ended too many processes.

        Args:
            deaths: what ``Ledger.enter`` said.
        """
        if deaths >= MOST_DEATHS:
            return nothing_decoded(died("decoding it", deaths))
        decoded = decode_planned(planned, self.image_size)
        ledger.leave.remote(planned["segment_id"])
        return decoded

    def trace(self, row: dict[str, Any], began_ns: int) -> None:
        """Tell of a segment that began at ``began_ns``, in nanoseconds since 1970."""
        about = {"longreel__segment": row["segment_id"], "longreel__video": row["video_id"]}
        record("segment", self.span, began_ns, failed=row["status"] == FAILED, **about)


def wanted_of(recipe: Recipe) -> Served:
    """What must serve rows of a recipe."""
    return Served(
        recipe.model, recipe.model_revision, recipe.keep_ratio, recipe.router, recipe.quantize
    )


class SegmentWorker:
    """Decodes segments and has the model narrate them, the next while the model has the last.

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
        """Work on PLAN rows; yields id and status of each once its row is with the ledger."""
        waiting: _Submitted | None = None
        for planned in batch.to_pylist():
            attempt = ray.get(self._ledger.begin.remote(planned["segment_id"]))
            if not attempt:  # done by an actor that died before it had done the whole batch
                continue
            deaths = ray.get(self._ledger.enter.remote(planned["segment_id"]))
            if waiting and deaths:
                # What ended its process once may do so again, and shall not take the one before,
                # whose row is not with the ledger yet, along each time.
                yield self._finish(waiting)
                waiting = None
            submitted = self._submit(planned, attempt, deaths)
            if waiting:
                yield self._finish(waiting)
            waiting = submitted
        if waiting:
            yield self._finish(waiting)
        flush()

    def _submit(self, planned: dict[str, Any], attempt: int, deaths: int) -> _Submitted:
        began_ns = time.time_ns()
        decoded = self._order.decode(planned, self._ledger, deaths)
        response = self._narrate(decoded) if len(decoded.indices) else None
        return _Submitted(planned, attempt, decoded, response, began_ns)

    def _narrate(self, decoded: DecodedSegment) -> DeploymentResponse:
        recipe = self._order.recipe
        return self._replica.narrate.remote(
            decoded.frames,
            self._order.instruction,
            recipe.silence_threshold,
            recipe.fps,
            wanted=wanted_of(recipe),
        )

    def _finish(self, work: _Submitted) -> pa.Table:
        narrated, error = None, None
        if work.response is not None:
            narrated, error = answer(work.response, lambda: self._narrate(work.decoded))
        row = segment_row(work.planned, work.decoded, narrated, error, self._order.provenance)
        self._order.trace(row, work.began_ns)
        return hand_over(row | {"attempt": work.attempt}, self._ledger)


@dataclass(frozen=True)
class _Submitted:
    planned: dict[str, Any]
    attempt: int
    decoded: DecodedSegment
    response: DeploymentResponse | None
    began_ns: int


def hand_over(row: dict[str, Any], ledger: ActorHandle) -> pa.Table:
    """Give a segment's row to the ledger; returns its id and status as a DONE row."""
    ray.get(ledger.add_segment.remote(row))
    done = {"segment_id": row["segment_id"], "status": row["status"]}
    return pa.Table.from_pylist([done], schema=DONE)


def segment_row(
    planned: dict[str, Any],
    decoded: DecodedSegment,
    narrated: Narrated | None,
    error: str | None,
    provenance: dict[str, Any],
) -> dict[str, Any]:
    """One row of the SEGMENTS schema, ``attempt`` left to the caller.

    Args:
        narrated: None when nothing was decoded or the model gave no answer.
        error: why the model gave no answer.
    """
    row = {name: planned[name] for name in ("segment_id", "video_id", "uri", "segment_index")}
    row |= {"start_s": planned["start_s"], "end_s": planned["end_s"], **provenance}
    row |= {"n_frames": len(decoded.indices), "decode_s": decoded.decode_s}
    row |= {
        "status": FAILED if error else decoded.status,
        "error": error or decoded.error,
        "narrations": [],
        "summary": None,
        "keyframes": [],
        "vision_tokens": 0,
        "processed_token_layers": 0,
        "kv_bytes": 0,
        "model_s": 0.0,
    }
    if narrated is None:
        return row
    times = [float(t) for t in decoded.times_s]
    row |= {
        "narrations": [
            {"time_s": t, "text": text}
            for t, text in zip(times, narrated.texts, strict=True)
            if text
        ],
        "summary": narrated.summary,
        "keyframes": [
            {
                "time_s": times[i],
                "score": narrated.salience[i],
                "jpeg": decoded.thumbnails[i],
                "uri": None,
            }
            for i in choose(times, narrated.salience, PER_SEGMENT)
        ],
        "vision_tokens": narrated.vision_tokens,
        "processed_token_layers": narrated.processed_token_layers,
        "kv_bytes": narrated.kv_bytes,
        "model_s": narrated.model_s,
    }
    return row
