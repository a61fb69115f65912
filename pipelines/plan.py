"""The plan: one row per segment of every video, written before any work begins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.actor import ActorHandle

from actors.deaths import MOST_DEATHS, Deaths, died
from actors.media import MOST_PIXELS
from actors.probe import probe
from actors.segments import plan_segments
from longreel.errors import UNUSABLE_ACCESS, LongreelError, kind_of
from longreel.schemas import PLAN, PROBE
from pipelines.cluster import on_this_node
from pipelines.ids import Recipe, segment_id, video_id
from pipelines.sources import SourceVideo

#: Videos probed by one task.
_PROBE_BATCH = 8


def plan_video(source: SourceVideo, recipe: Recipe) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Probe one video and cut it.

    Returns:
        Its PROBE row, and its PLAN rows (none when it cannot be used: the probe row says why).
    """
    row: dict[str, Any] = dict.fromkeys(PROBE.names)
    row |= {"uri": source.uri, "etag": source.etag, "size_bytes": source.size_bytes}
    row |= {"n_segments": 0, "error": source.error}
    row["video_id"] = video_id(source.uri, source.etag)
    if source.error:
        return row, []
    try:
        info = probe(source.uri, MOST_PIXELS)
    except LongreelError as failure:
        return row | {"error": str(failure)}, []
    cuts = plan_segments(info, recipe.fps, recipe.segment_s)
    video = video_id(info.uri, info.etag)
    row |= {
        "video_id": video,
        "etag": info.etag,
        "size_bytes": info.size_bytes,
        "duration_s": info.duration_s,
        "width": info.width,
        "height": info.height,
        "source_fps": info.source_fps,
        "codec": info.codec,
        "n_segments": len(cuts),
    }
    segments = [
        {
            "segment_id": segment_id(info.uri, info.etag, cut.start_s, cut.end_s, recipe),
            "video_id": video,
            "uri": info.uri,
            "etag": info.etag,
            "size_bytes": info.size_bytes,
            "segment_index": cut.index,
            "n_segments": len(cuts),
            "start_s": cut.start_s,
            "end_s": cut.end_s,
            "first_index": cut.first_index,
            "end_index": cut.end_index,
            "duration_s": info.duration_s,
            "origin_pts": info.origin_pts,
            "fps": recipe.fps,
        }
        for cut in cuts
    ]
    return row, segments


def plan_all(
    sources: Sequence[SourceVideo], recipe: Recipe
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Probe all videos with Ray tasks, in parallel.

    Returns:
        PROBE rows and PLAN rows, both in the order of ``sources``.

    Raises:
        LongreelError: the store refuses our credentials, which is no fault of a video.
    """
    table = pa.table(
        {
            "order": pa.array(range(len(sources)), pa.int64()),
            "uri": pa.array([s.uri for s in sources], pa.string()),
            "size_bytes": pa.array([s.size_bytes for s in sources], pa.int64()),
            "etag": pa.array([s.etag for s in sources], pa.string()),
            "error": pa.array([s.error for s in sources], pa.string()),
        }
    )
    pieces = [table.slice(i, _PROBE_BATCH) for i in range(0, len(table), _PROBE_BATCH)]
    # Ray Data begins a task that ended its process anew, however often that was.
    counting = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Deaths)
    deaths = counting.options(scheduling_strategy=on_this_node()).remote()
    planned = ray.data.from_arrow(pieces).map_batches(
        _plan_batch, fn_args=(recipe, deaths), batch_size=None, batch_format="pyarrow"
    )
    rows = sorted(planned.iter_rows(), key=lambda row: row["order"])
    probes = [r["probe"] for r in rows]
    for row in probes:
        if row["error"] and kind_of(row["error"]) in UNUSABLE_ACCESS:
            raise LongreelError(row["error"])
    return probes, [s for r in rows for s in r["segments"]]


def _plan_batch(batch: pa.Table, recipe: Recipe, deaths: ActorHandle) -> Iterator[pa.Table]:
    schema = pa.schema(
        [
            ("order", pa.int64()),
            ("probe", pa.struct(list(PROBE))),
            ("segments", pa.list_(pa.struct(list(PLAN)))),
        ]
    )
    for row in batch.to_pylist():
        order = row.pop("order")
        source = SourceVideo(**row)
        before = ray.get(deaths.begin.remote(order))
        if before >= MOST_DEATHS:
            source = replace(source, error=source.error or died("opening it", before))
        found, segments = plan_video(source, recipe)
        deaths.end.remote(order)
        record = {"order": order, "probe": found, "segments": segments}
        yield pa.Table.from_pylist([record], schema=schema)
