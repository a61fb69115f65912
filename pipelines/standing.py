"""How far a job is, counted from what lies in its output; no cluster is asked."""

from __future__ import annotations

from collections.abc import Sequence

from actors.objects import join_uri
from actors.progress import Progress
from actors.rows import read_rows
from actors.standing import Work, stand
from longreel.schemas import PLAN, PROBE
from pipelines.passes import Row


def work_of(
    probes: Sequence[Row], plan: Sequence[Row], others: frozenset[str] = frozenset()
) -> Work:
    """What a job is about.

    Args:
        probes: PROBE rows of its videos.
        plan: their PLAN rows.
        others: ids of videos that are its own too, whose rows stay as they are.
    """
    totals = Progress(
        n_videos=len(probes) + len(others),
        n_segments=len(plan),
        total_video_seconds=sum(row["end_s"] - row["start_s"] for row in plan),
    )
    return Work(
        totals,
        frozenset(row["segment_id"] for row in plan),
        frozenset(row["video_id"] for row in probes),
        others,
    )


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
    return stand(output, work_of(probes, [r for r in plan if r["video_id"] in videos])).progress
