"""The two passes of a job: segments to rows, rows to summaries, until nothing is missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import ray
from ray.actor import ActorHandle, ActorMethod
from ray.data import Dataset
from ray.exceptions import RayError

from actors import lease
from actors.objects import join_uri
from actors.progress import Progress
from actors.rows import files_by
from actors.standing import Standing, Work, stand
from longreel.errors import LongreelError
from longreel.schemas import PLAN, SEGMENTS
from pipelines.background import in_background
from pipelines.failures import job_failure
from pipelines.passes import Row, in_batches, through
from pipelines.repeated import drop_videos, undo_repeated
from pipelines.stream import StreamWorker
from pipelines.videos import REDUCE, ReduceOrder, VideoReducer
from pipelines.worker import SegmentWorker, WorkOrder

#: Called with the phase's name and the progress so far, a few times a second.
Report = Callable[[str, Progress], None]
_POLL_S = 0.25


@dataclass(frozen=True)
class Model:
    """The model service that a job needs, while it starts.

    Attributes:
        started: done when it answers and is the one that the job wants; or why it is not.
        told: the phase's name until then.
    """

    started: Future[None]
    told: str


@dataclass
class Run:
    """One run of a job.

    Attributes:
        token: of the lease that is held on the output. It is asked for before rows are taken out: a
            run that was taken for dead would take those of the one that works there now.
        workers: decoding actors at most.
        finished: ids of the segments and videos whose rows lie in the output.
        model: None where it is not needed.
    """

    output: str
    token: str
    work: Work
    ledger: ActorHandle
    workers: int
    report: Report
    finished: set[str]
    model: Model | None = None

    def narrate(self, plan: Sequence[Row], order: WorkOrder) -> None:
        """Give every segment of the plan its row."""
        begun = self.finished

        def one_pass(rows: list[Row]) -> Dataset:
            if order.recipe.mode == "stream":
                # A stream goes on from what was seen before, so a video comes whole.
                videos = {row["video_id"] for row in rows}
                whole = [row for row in plan if row["video_id"] in videos]
                batches: list[Sequence[Row]] = [
                    list(group) for _, group in groupby(whole, lambda row: row["video_id"])
                ]
                worker: type = StreamWorker
            else:
                batches, worker = in_batches(rows, self.workers, largest=16), SegmentWorker
            return through(worker, (order, self.ledger), batches, PLAN, self.workers)

        self._until_none_is_missing("narrating", plan, "segment_id", one_pass)
        # None of this run's: made by one that was taken for dead, of segments that may be others.
        if late := self.work.videos & (self.finished - begun):
            lease.require(self.output, self.token)
            drop_videos(self.output, late)
            self.finished = self._stand_again()

    def reduce(self, probes: Sequence[Row], order: ReduceOrder) -> None:
        """Give every video its row, from its segments' rows."""
        if self.model:
            self.model.started.result()

        def one_pass(rows: list[Row]) -> Dataset:
            # A segment's row may lie in any file: each reducer shall open those of its own alone.
            files = files_by(join_uri(self.output, "segments"), SEGMENTS, "video_id")
            found = [row | {"files": files.get(row["video_id"], [])} for row in rows]
            batches = in_batches(found, self.workers, largest=64)
            return through(VideoReducer, (order, self.ledger), batches, REDUCE, self.workers)

        self._until_none_is_missing("summarizing", probes, "video_id", one_pass)

    def _until_none_is_missing(
        self,
        phase: str,
        wanted: Sequence[Row],
        key: str,
        one_pass: Callable[[list[Row]], Dataset],
    ) -> None:
        """What counts is what lies in the output: rows that died with the ledger are made again."""
        before = None
        while rows := [row for row in wanted if row[key] not in self.finished]:
            if before is not None and len(rows) >= before:
                raise LongreelError(f"the job failed: {len(rows)} rows are missing after {phase}")
            before = len(rows)
            try:
                self._drive(phase, one_pass(rows))
            finally:
                # Also when interrupted: what has been worked out need not be worked out again.
                self._flush()
            standing = stand(self.output, self.work)
            self.finished = standing.finished
            if standing.repeated:  # a write of a run that was taken for dead has landed since
                lease.require(self.output, self.token)
                undo_repeated(self.output, self.work.videos)
                self.finished = self._stand_again()
                before = None

    def _drive(self, phase: str, work: Dataset) -> None:
        """Run a pass to its end, reporting the ledger's progress meanwhile."""

        def consume() -> None:
            for _ in work.iter_batches(batch_size=None, batch_format="pyarrow"):
                pass

        done = in_background(consume)
        while not done.done():
            awaiting = self._awaiting()
            progress = ray.get(self.ledger.progress.remote(awaiting is None))
            self.report(awaiting or phase, progress)
            wait([done], _POLL_S)
        self.report(phase, ray.get(self.ledger.progress.remote()))
        if failure := done.exception():
            raise job_failure(failure)

    def _awaiting(self) -> str | None:
        """The phase's name while the model starts; raises what kept it from that."""
        if self.model is None:
            return None
        if not self.model.started.done():
            return self.model.told
        self.model.started.result()
        return None

    def _flush(self) -> None:
        self._of_ledger(self.ledger.flush)

    def _stand_again(self) -> set[str]:
        """Ids of what has rows, now that some were taken out."""
        standing: Standing = self._of_ledger(self.ledger.stand_again)
        return standing.finished

    @staticmethod
    def _of_ledger(method: ActorMethod) -> Any:
        try:
            return ray.get(method.remote())
        except RayError as failure:
            raise job_failure(failure) from None
