"""The second pass of a summarization job: each video's row from its segments' rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.actor import ActorHandle

from actors.deaths import MOST_DEATHS, died
from actors.objects import join_uri
from actors.rows import read_rows
from longreel.errors import LongreelError
from longreel.schemas import FAILED, PROBE, SEGMENTS
from pipelines.asking import answer
from pipelines.endpoint import Endpoint
from pipelines.reduce import (
    Node,
    Summarize,
    build_tree,
    chapters,
    leaves_of,
    outline,
    status_of,
    summaries,
    summed,
    video_keyframes,
)
from serve.handles import replica_handle
from serve.served import Served

#: A PROBE row, and the files that hold the rows of its segments.
REDUCE = PROBE.append(pa.field("files", pa.list_(pa.string())))
#: Segments whose rows, keyframes and all, a reducer holds at once: a video of some hours has as
#: many, and it is held whole.
MOST_SEGMENTS = 1024
_SMALL = [name for name in SEGMENTS.names if name not in ("narrations", "summary", "keyframes")]


def video_row(
    probed: dict[str, Any],
    segments: list[dict[str, Any]],
    leaves: Sequence[Node],
    summarize: Summarize,
    provenance: dict[str, Any],
) -> dict[str, Any]:
    """One row of the VIDEOS schema.

    Args:
        probed: the video's PROBE row.
        segments: its SEGMENTS rows in order.
        leaves: what is summarized of them.
        summarize: joins consecutive summaries.
        provenance: the provenance columns, and ``job_id``.
    """
    if probed["error"]:
        status, error = FAILED, probed["error"]
    else:
        status, error = status_of(segments, probed["n_segments"])
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
        "outline": outline(root),
        "keyframes": video_keyframes(segments),
    }


def at_once(
    videos: Sequence[dict[str, Any]], most: int = MOST_SEGMENTS
) -> list[list[dict[str, Any]]]:
    """PROBE rows in groups of at most ``most`` segments, or of one video that has more."""
    groups: list[list[dict[str, Any]]] = []
    room = 0
    for video in videos:
        if not groups or room < video["n_segments"]:
            groups.append([])
            room = most
        groups[-1].append(video)
        room -= video["n_segments"]
    return groups


@dataclass(frozen=True)
class ReduceOrder:
    """What every video of a job shares.

    Attributes:
        output: folder or prefix of the job.
        provenance: the provenance columns of a row, and ``job_id``.
        wanted: the job's own model, which summarizes.
        endpoint: the text model that does so in its place.
    """

    output: str
    provenance: dict[str, Any]
    wanted: Served
    endpoint: Endpoint | None = None


class VideoReducer:
    """Reads the segment rows of some videos, reduces them and hands the rows to the ledger."""

    def __init__(self, order: ReduceOrder, ledger: ActorHandle) -> None:
        self._order = order
        self._ledger = ledger

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Reduce the videos of some REDUCE rows; yields their ids.

        Raises:
            LongreelError: no model answers; a row without a summary would pass for finished.
        """
        for videos in at_once(batch.to_pylist()):
            work = "reduce " + " ".join(video["video_id"] for video in videos)
            if len(videos) > 1 and not ray.get(self._ledger.enter.remote(work)):
                yield from self._reduced(videos)
                self._ledger.leave.remote(work)
            else:  # one of them may have ended the process, and shall not take the others along
                for video in videos:
                    yield from self._alone(video)

    def _alone(self, video: dict[str, Any]) -> Iterator[pa.Table]:
        work = f"reduce {video['video_id']}"
        deaths = ray.get(self._ledger.enter.remote(work))
        if deaths < MOST_DEATHS:
            yield from self._reduced([video])
        else:
            error = died("joining its segments", deaths)
            # All but what is large, so that it is known what came out of them.
            segments = self._segments([video], _SMALL)[video["video_id"]]
            large: dict[str, Any] = {"narrations": [], "keyframes": []}
            told = [{**segment, **large} for segment in segments]
            probed = {name: video[name] for name in PROBE.names} | {"error": error}
            row = video_row(probed, told, [], lambda _: "", self._order.provenance)
            yield self._hand_over(row)
        self._ledger.leave.remote(work)

    def _reduced(self, videos: list[dict[str, Any]]) -> Iterator[pa.Table]:
        segments = self._segments(videos)
        for video in videos:
            probed = {name: video[name] for name in PROBE.names}
            yield self._hand_over(self._row(probed, segments[video["video_id"]]))

    def _hand_over(self, row: dict[str, Any]) -> pa.Table:
        ray.get(self._ledger.add_video.remote(row))
        return pa.table({"video_id": [row["video_id"]]})

    def _segments(
        self, videos: list[dict[str, Any]], columns: list[str] | None = None
    ) -> dict[str, list[dict[str, Any]]]:
        """The SEGMENTS rows of each video, in order; of some columns, if given."""
        ids = pa.array([video["video_id"] for video in videos], pa.string())
        rows = read_rows(
            join_uri(self._order.output, "segments"),
            SEGMENTS,
            columns=columns,
            where=pc.field("video_id").isin(ids),
            files=sorted({file for video in videos for file in video["files"]}),
        )
        # A row of a run that was taken for dead may have come since: the one written last counts.
        once = {row["segment_id"]: row for row in rows}
        found: dict[str, list[dict[str, Any]]] = {video["video_id"]: [] for video in videos}
        for row in sorted(once.values(), key=lambda row: row["segment_index"]):
            found[row["video_id"]].append(row)
        return found

    def _row(self, probed: dict[str, Any], segments: list[dict[str, Any]]) -> dict[str, Any]:
        provenance, endpoint = self._order.provenance, self._order.endpoint
        if endpoint is None:
            own = partial(_by_replica, self._order.wanted)
            return video_row(probed, segments, summaries(segments), own, provenance)
        leaves = [
            Node(leaf.start_s, leaf.end_s, endpoint.summarize([leaf]))
            for leaf in leaves_of(segments)
        ]
        return video_row(probed, segments, leaves, endpoint.summarize, provenance)


def _by_replica(wanted: Served, nodes: Sequence[Node]) -> str:
    ask = partial(replica_handle().summarize.remote, [node.text for node in nodes], wanted)
    text, error = answer(ask(), ask)
    if error:
        raise LongreelError(f"summaries could not be joined: {error}")
    return str(text)
