"""The second pass of a summarization job: each video's row from its segments' rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.actor import ActorHandle

from actors.objects import join_uri
from longreel.schemas import FAILED, PROBE, SEGMENTS
from pipelines.reduce import (
    Node,
    Summarize,
    build_tree,
    chapters,
    status_of,
    summed,
    video_keyframes,
)
from pipelines.rows import read_rows
from serve.app import replica_handle


def video_row(
    probed: dict[str, Any],
    segments: list[dict[str, Any]],
    summarize: Summarize,
    provenance: dict[str, Any],
) -> dict[str, Any]:
    """One row of the VIDEOS schema.

    Args:
        probed: the video's PROBE row.
        segments: its SEGMENTS rows, in any order.
        summarize: joins consecutive summaries.
        provenance: the provenance columns, and ``job_id``.
    """
    segments = sorted(segments, key=lambda s: s["segment_index"])
    if probed["error"]:
        status, error = FAILED, probed["error"]
    else:
        status, error = status_of(segments, probed["n_segments"])
    leaves = [Node(s["start_s"], s["end_s"], s["summary"]) for s in segments if s["summary"]]
    root = build_tree(leaves, summarize)
    failed = sum(s["status"] == FAILED for s in segments)
    return {
        **{name: value for name, value in probed.items() if name != "error"},
        **provenance,
        **summed(segments),
        "status": status,
        "error": error,
        "n_failed_segments": failed + max(0, probed["n_segments"] - len(segments)),
        "n_frames": sum(s["n_frames"] for s in segments),
        "summary": root.text if root else None,
        "chapters": chapters(root),
        "keyframes": video_keyframes(segments),
    }


class VideoReducer:
    """Reads the segment rows of some videos, reduces them and hands the rows to the ledger."""

    def __init__(self, output: str, provenance: dict[str, Any], ledger: ActorHandle) -> None:
        self._folder = join_uri(output, "segments")
        self._provenance = provenance
        self._ledger = ledger

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Reduce the videos of some PROBE rows; yields their ids."""
        ids = batch["video_id"]
        rows = read_rows(self._folder, SEGMENTS, where=pc.field("video_id").isin(ids))
        for probed in batch.select(PROBE.names).to_pylist():
            mine = [row for row in rows if row["video_id"] == probed["video_id"]]
            row = video_row(probed, mine, self._summarize, self._provenance)
            ray.get(self._ledger.add_video.remote(row))
            yield pa.table({"video_id": [row["video_id"]]})

    def _summarize(self, texts: list[str]) -> str:
        answer: str = replica_handle().summarize.remote(texts).result()
        return answer
