"""How far a job is, counted from what lies in its output; no cluster is asked."""

from __future__ import annotations

from actors.objects import join_uri
from actors.progress import Progress
from longreel.schemas import PLAN, PROBE, SEGMENTS, VIDEOS
from pipelines.rows import read_rows


def standing(output: str) -> Progress | None:
    """The plan in ``output`` against its rows there, None while there is no plan.

    Rows that a running job still holds in memory are not counted.

    Raises:
        StorageError: the output could not be read.
    """
    probes = read_rows(join_uri(output, "_longreel", "videos"), PROBE, columns=["video_id"])
    if not probes:
        return None
    columns = ["segment_id", "video_id", "start_s", "end_s"]
    plan = read_rows(join_uri(output, "_longreel", "plan"), PLAN, columns=columns)
    videos = {row["video_id"] for row in probes}
    # What was planned of a source that has changed since stays in the plan.
    seconds = {
        row["segment_id"]: row["end_s"] - row["start_s"]
        for row in plan
        if row["video_id"] in videos
    }
    found = Progress(
        n_videos=len(videos), n_segments=len(seconds), total_video_seconds=sum(seconds.values())
    )
    columns = ["segment_id", "status", "n_frames"]
    for row in read_rows(join_uri(output, "segments"), SEGMENTS, columns=columns):
        if row["segment_id"] in seconds:
            found.segments[row["status"]] += 1
            found.frames += row["n_frames"]
            found.video_seconds += seconds[row["segment_id"]]
    for row in read_rows(join_uri(output, "videos"), VIDEOS, columns=["video_id", "status"]):
        if row["video_id"] in videos:
            found.videos[row["status"]] += 1
    return found
