"""A driver killed in the middle of a job, and the same command after it."""

from __future__ import annotations

import time
import uuid
from pathlib import Path

import pytest

from longreel.schemas import OK
from tests.pipelines.conftest import Job
from tests.pipelines.job_runs import (
    JOB_TIMEOUT_S,
    OPTIONS,
    content,
    gone,
    kill_group,
    longreel,
    rows,
    started,
    table,
)
from tests.videos import write_video, x264

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def run_until(dest: Path, arguments: list[str], moment: str) -> None:
    """Starts a job and kills it once a moment has come; checks that nothing of it lives on."""
    mark = uuid.uuid4().hex
    with started("summarize", *arguments, mark=mark) as process:
        deadline = time.monotonic() + JOB_TIMEOUT_S
        while not list((dest / moment).glob("*.parquet")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        if moment == "_longreel/plan":
            time.sleep(3)  # the model or a worker is starting
        assert process.poll() is None, "it ended before the kill"
        kill_group(process)
    left = gone(mark, within_s=60)
    assert left == {}, "processes outlive the killed driver"


@pytest.mark.long
def test_killed_twice_then_run_again(job: Job, tmp_path: Path) -> None:
    """Guards against rows lost or written twice, and finished work done again, after a crash.

    One kill comes once the plan lies there, one once the first rows do; then it may finish.
    """
    dest = tmp_path / "rows"
    arguments = [*job.sources.arguments, "-o", str(dest), *OPTIONS]
    run_until(dest, arguments, "_longreel/plan")
    run_until(dest, arguments, "segments")
    kept = {row["segment_id"]: row for row in rows(dest, "segments")}
    assert kept
    last = longreel("summarize", *arguments)
    assert last.code == job.run.code, last.said
    for part, key in (("segments", "segment_id"), ("videos", "video_id")):
        mine, undisturbed = content(rows(dest, part), key), content(rows(job.dest, part), key)
        assert mine.keys() == undisturbed.keys()
        for name, row in mine.items():
            assert row == undisturbed[name]
        assert table(dest, part).schema.equals(table(job.dest, part).schema)
    after = {row["segment_id"]: row for row in rows(dest, "segments")}
    for name, row in kept.items():
        assert after[name] == row
    plan, whole = rows(dest, "_longreel/plan"), rows(job.dest, "_longreel/plan")
    ids = sorted(row["segment_id"] for row in plan)
    assert ids == sorted(row["segment_id"] for row in whole)
    assert len(set(ids)) == len(ids)


def test_killed_between_rows(tmp_path: Path) -> None:
    """Guards against the rest of a half-done video lost, or its first half done again."""
    clip = write_video(tmp_path / "twenty.mp4", n_frames=500, options=x264())
    dest = tmp_path / "rows"
    arguments = [clip.uri, "-o", str(dest), "--fps", "6", "--segment-seconds", "1"]
    run_until(dest, arguments, "segments")
    kept = {row["segment_id"]: row for row in rows(dest, "segments")}
    planned = [row["segment_id"] for row in rows(dest, "_longreel/plan")]
    assert 0 < len(kept) < len(planned), "the kill came too late to show anything"
    last = longreel("summarize", *arguments)
    assert last.code == 0, last.said
    assert f"{len(kept)}/{len(planned)} segments" in last.err
    after = rows(dest, "segments")
    assert sorted(row["segment_id"] for row in after) == sorted(planned)
    for row in after:
        assert row == kept.get(row["segment_id"], row)
    (video,) = rows(dest, "videos")
    assert (video["status"], video["n_segments"]) == (OK, len(planned))
    assert video["n_frames"] == sum(row["n_frames"] for row in after) == 120


@pytest.mark.long
def test_nothing_outlives_a_finished_job(job: Job, tmp_path: Path) -> None:
    """Guards against a cluster, or a model in memory, that stays after the command returned."""
    mark = uuid.uuid4().hex
    arguments = ["summarize", str(job.sources.good["b.mp4"].path), "-o", str(tmp_path), *OPTIONS]
    with started(*arguments, mark=mark) as process:
        out, err = process.communicate(timeout=JOB_TIMEOUT_S)
        assert process.returncode == 0, (out, err)
    assert gone(mark, within_s=10) == {}
