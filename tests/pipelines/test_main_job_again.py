"""A job's place used again: by the same command, by other settings, with repaired sources."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from longreel import schemas
from tests.pipelines.conftest import Job
from tests.pipelines.job_runs import (
    NOISE,
    OPTIONS,
    by_name,
    complaint,
    longreel,
    rows,
    state_of,
)

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_the_same_command_again_changes_nothing(job: Job) -> None:
    """Guards against finished work done twice, and rows written twice; or refused, for replicas
    that this machine has no room for and the job has no use for."""
    before, state = {p: rows(job.dest, p) for p in ("segments", "videos")}, state_of(job.dest)
    again = longreel(
        "summarize", *job.sources.arguments, "-o", str(job.dest), *OPTIONS, "--replicas", "999"
    )
    assert again.code == 3, again.said
    assert again.took_s < job.run.took_s
    after = {p: rows(job.dest, p) for p in ("segments", "videos")}
    key = {"segments": "segment_id", "videos": "video_id"}
    for part, column in key.items():
        assert sorted(r[column] for r in after[part]) == sorted(r[column] for r in before[part])
    old = {r["segment_id"]: r for r in before["segments"]}
    assert {r["segment_id"]: r for r in after["segments"]} == old
    done = [path for path in state if path.startswith("segments/")]
    assert {p: state_of(job.dest)[p] for p in done} == {p: state[p] for p in done}
    assert [word for word in NOISE if word in again.out + again.err] == [], again.said


@pytest.mark.parametrize(
    ("option", "value"),
    [("--fps", "1"), ("--segment-seconds", "8"), ("--prompt", "Count."), ("--keep-ratio", "0.5")],
)
def test_another_recipe_on_the_same_place_is_refused(job: Job, option: str, value: str) -> None:
    """Guards against rows of two recipes mixed in one table."""
    state = state_of(job.dest)
    run = longreel(
        "summarize", *job.sources.arguments, "-o", str(job.dest), *OPTIONS, option, value
    )
    assert run.code == 2, run.said
    said = complaint(run)
    word = option.strip("-")
    assert any(w in said for w in (word, word.replace("-", "_"), f"{word.split('-')[0]}_s")), said
    assert state_of(job.dest) == state


@pytest.mark.long
def test_a_repaired_source_is_done_and_nothing_else(job: Job, tmp_path: Path) -> None:
    """Guards against a video that stays failed once it is there, or counts twice then."""
    dest, late = tmp_path / "rows", tmp_path / "late.mp4"
    good = job.sources.good["r90.mp4"].path
    arguments = ["summarize", str(good), str(late), "-o", str(dest), *OPTIONS]
    first = longreel(*arguments)
    assert first.code == 3, first.said
    kept = {row["segment_id"]: row for row in rows(dest, "segments")}
    shutil.copy(job.sources.good["really_mp4.avi"].path, late)
    second = longreel(*arguments)
    assert second.code == 0, second.said
    videos = by_name(rows(dest, "videos"))
    assert {row["status"] for row in videos.values()} == {schemas.OK}
    assert set(videos) == {"r90.mp4", "late.mp4"}
    after = {row["segment_id"]: row for row in rows(dest, "segments")}
    assert len(after) == 2
    assert {name: after[name] for name in kept} == kept

    # The same name, another video: the rows of the one it replaced must go.
    shutil.copy(job.sources.good["b.mp4"].path, late)
    third = longreel(*arguments)
    assert third.code == 0, third.said
    videos = by_name(rows(dest, "videos"))
    assert set(videos) == {"r90.mp4", "late.mp4"}
    assert {row["status"] for row in videos.values()} == {schemas.OK}
    final = rows(dest, "segments")
    assert {row["video_id"] for row in final} == {row["video_id"] for row in videos.values()}
    assert len(final) == sum(row["n_segments"] for row in videos.values())
