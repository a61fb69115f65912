"""The job ledger: one Ray actor that takes rows, writes them once, and knows the progress."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import ray

from actors import lease
from actors.deaths import WORKER_DIED, Deaths
from actors.objects import join_uri
from actors.progress import Progress
from actors.reported import JobFigures
from actors.rowfiles import RowFiles
from actors.standing import Standing, Work, stand
from longreel.errors import kind_of
from longreel.schemas import FAILED, SEGMENTS, VIDEOS


class Ledger:
    """Takes each row once, whoever sends it how often, and writes it to ``dest``.

    Args:
        dest: the job's output folder or ``s3://`` prefix.
        totals: progress with its totals, and what earlier runs finished, filled in.
        finished: segment and video ids that already have rows in ``dest``.
        guard: called before each file is written; raises where it must not be.
    """

    def __init__(
        self,
        dest: str,
        totals: Progress,
        finished: set[str],
        guard: Callable[[], None] = lambda: None,
    ) -> None:
        self._segments = RowFiles(join_uri(dest, "segments"), SEGMENTS, guard)
        self._videos = RowFiles(join_uri(dest, "videos"), VIDEOS, guard)
        self._progress = totals
        self._known = finished
        self._attempts: Counter[str] = Counter()
        self._deaths = Deaths()
        self._ready = False
        self._figures: JobFigures | None = None

    def begin(self, segment_id: str) -> int:
        """Count one more attempt at a segment; its number, from 1, or 0 when it has its row."""
        if segment_id in self._known:
            return 0
        self._attempts[segment_id] += 1
        return self._attempts[segment_id]

    def enter(self, work_id: str) -> int:
        """A segment is decoded, with its row or without, or a video reduced: ``Deaths.begin``."""
        return self._deaths.begin(work_id)

    def leave(self, work_id: str) -> None:
        """See ``Deaths.end``."""
        self._deaths.end(work_id)

    def lacking(self, segment_ids: list[str]) -> list[str]:
        """Those of the segments that have no row."""
        return [segment_id for segment_id in segment_ids if segment_id not in self._known]

    def add_segment(self, row: dict[str, Any]) -> None:
        """Take a row of the SEGMENTS schema.

        Raises:
            StorageError: rows could not be written; this one is taken all the same.
        """
        if row["segment_id"] in self._known:
            return
        # Known first: a row whose file could not be written is kept, and must not come again.
        self._known.add(row["segment_id"])
        p = self._progress
        p.segments[row["status"]] += 1
        p.frames += row["n_frames"]
        p.video_seconds += row["end_s"] - row["start_s"]
        if row["error"]:
            self._note_failure(row)
        if self._figures:
            self._figures.segment(row)
        self._segments.add(row)

    def add_video(self, row: dict[str, Any]) -> None:
        """Take a row of the VIDEOS schema; errors as for segments."""
        if row["video_id"] in self._known:
            return
        self._known.add(row["video_id"])
        self._progress.videos[row["status"]] += 1
        # Of others, their segments' failures are told.
        own = not row["n_segments"] or kind_of(row["error"] or "") == WORKER_DIED
        if row["status"] == FAILED and own:
            self._note_failure(row)
        if self._figures:
            self._figures.video(row)
        self._videos.add(row)

    def flush(self) -> None:
        """Write everything taken so far."""
        self._segments.flush()
        self._videos.flush()

    def progress(self, ready: bool = True) -> Progress:
        """The progress so far.

        Args:
            ready: whether workers may begin; it is said anew each time, for a ledger that begins
                again has heard nothing.
        """
        self._ready = ready
        return self._progress

    def ready(self) -> bool:
        """Whether workers may begin."""
        return self._ready

    def _note_failure(self, row: dict[str, Any]) -> None:
        failures = self._progress.failures
        failures.append(f"{row['uri']}: {row['error']}")
        # As many as may come between two looks of whoever shows them.
        del failures[:-100]


class RunLedger(Ledger):
    """The ledger of one run. When its process dies it begins again from what is written.

    Args:
        token: of the lease that the run holds on ``dest``.
        job_id: under which its metrics are told; None tells none.
    """

    def __init__(self, dest: str, work: Work, token: str, job_id: str | None = None) -> None:
        self._dest, self._work = dest, work
        standing = stand(dest, work)
        guard = partial(lease.require, dest, token)
        super().__init__(dest, standing.progress, standing.finished, guard)
        if job_id is not None:
            self._figures = JobFigures(job_id, standing.progress)

    def stand_again(self) -> Standing:
        """Begin again from what is written, where rows were taken out; what stands there now.

        Raises:
            StorageError: rows cannot be written or read.
        """
        self.flush()
        standing = stand(self._dest, self._work)
        standing.progress.failures.extend(self._progress.failures)
        self._known, self._progress = standing.finished, standing.progress
        if self._figures:
            self._figures.stand(standing.progress)
        return standing


LedgerActor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(RunLedger)
