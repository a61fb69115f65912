"""The job ledger: one Ray actor that takes rows, writes them once, and knows the progress."""

from __future__ import annotations

from collections import Counter
from typing import Any

import ray

from actors.objects import join_uri
from actors.progress import Progress
from actors.rowfiles import RowFiles
from longreel.schemas import FAILED, SEGMENTS, VIDEOS


class Ledger:
    """Takes each row once, whoever sends it how often, and writes it to ``dest``.

    Args:
        dest: the job's output folder or ``s3://`` prefix.
        totals: progress with its totals, and what earlier runs finished, filled in.
        finished: segment and video ids that already have rows in ``dest``.
    """

    def __init__(self, dest: str, totals: Progress, finished: set[str]) -> None:
        self._segments = RowFiles(join_uri(dest, "segments"), SEGMENTS)
        self._videos = RowFiles(join_uri(dest, "videos"), VIDEOS)
        self._progress = totals
        self._known = finished
        self._attempts: Counter[str] = Counter()

    def begin(self, segment_id: str) -> int:
        """Count one more attempt at a segment; returns its number, from 1."""
        self._attempts[segment_id] += 1
        return self._attempts[segment_id]

    def add_segment(self, row: dict[str, Any]) -> None:
        """Take a row of the SEGMENTS schema."""
        if row["segment_id"] in self._known:
            return
        self._segments.add(row)
        self._known.add(row["segment_id"])
        p = self._progress
        p.segments[row["status"]] += 1
        p.frames += row["n_frames"]
        p.video_seconds += row["end_s"] - row["start_s"]
        if row["error"]:
            self._note_failure(row)

    def add_video(self, row: dict[str, Any]) -> None:
        """Take a row of the VIDEOS schema."""
        if row["video_id"] in self._known:
            return
        self._videos.add(row)
        self._known.add(row["video_id"])
        self._progress.videos[row["status"]] += 1
        if row["status"] == FAILED and not row["n_segments"]:
            self._note_failure(row)

    def flush(self) -> None:
        """Write everything taken so far."""
        self._segments.flush()
        self._videos.flush()

    def progress(self) -> Progress:
        """The progress so far."""
        return self._progress

    def _note_failure(self, row: dict[str, Any]) -> None:
        failures = self._progress.failures
        failures.append(f"{row['uri']}: {row['error']}")
        del failures[:-5]


LedgerActor = ray.remote(num_cpus=0)(Ledger)
