"""Metrics of processes that come and go: Ray's node agents export them beside Ray's own.

Nobody scrapes such a process itself, and Prometheus finds the agents by the file that Ray writes.
What happens in the last seconds before the process ends may not be told any more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from ray.util import metrics as on_ray

from actors.progress import Progress
from longreel import metrics
from longreel.metrics import Metric

_KINDS: Mapping[str, Any] = {"counter": on_ray.Counter, "gauge": on_ray.Gauge}


def reported(metric: Metric) -> Any:
    """``metric`` as ``ray.util.metrics`` has it. It has no histograms of ours: their sums would be
    guessed from the buckets.
    """
    made = _KINDS[metric.kind]
    return made(metric.name, description=metric.help, tag_keys=tuple(metric.labels))


class JobFigures:
    """What a job's ledger tells of its run.

    Args:
        totals: with what earlier runs finished, which is not counted again.
    """

    def __init__(self, job_id: str, totals: Progress) -> None:
        self._job = {"job_id": job_id}
        self._rows, self._left = reported(metrics.JOB_ROWS), reported(metrics.JOB_LEFT)
        self._sums = {
            "n_frames": reported(metrics.JOB_FRAMES),
            "decode_s": reported(metrics.JOB_DECODE),
            "model_s": reported(metrics.JOB_MODEL),
        }
        self._video = reported(metrics.JOB_VIDEO)
        self.stand(totals)

    def stand(self, totals: Progress) -> None:
        """What is left is what ``totals`` says, whatever was counted so far."""
        self._still = Counter(
            segments=totals.n_segments - totals.segments.total(),
            videos=totals.n_videos - totals.videos.total(),
        )
        for table, left in self._still.items():
            self._left.set(left, {**self._job, "table": table})

    def segment(self, row: Mapping[str, Any]) -> None:
        """A row of the SEGMENTS schema was taken."""
        self._row("segments", row["status"])
        sums = [(total, row[name]) for name, total in self._sums.items()]
        for total, value in [*sums, (self._video, row["end_s"] - row["start_s"])]:
            if value > 0:  # Ray refuses 0
                total.inc(value, self._job)

    def video(self, row: Mapping[str, Any]) -> None:
        """A row of the VIDEOS schema was taken."""
        self._row("videos", row["status"])

    def _row(self, table: str, status: str) -> None:
        self._rows.inc(1, {**self._job, "table": table, "status": status})
        self._still[table] -= 1
        self._left.set(self._still[table], {**self._job, "table": table})
