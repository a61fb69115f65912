"""One job over good and bad videos: its rows, its words, and the same command once more."""

from __future__ import annotations

import io
import itertools
import math
import re

import numpy as np
import pytest
from PIL import Image

from longreel import schemas
from tests.pipelines.conftest import Job
from tests.pipelines.job_runs import (
    FPS,
    NOISE,
    Row,
    by_name,
    longreel,
    name_of,
    rows,
    segments_of,
    table,
)
from tests.videos import read_number

pytestmark = [pytest.mark.ray, pytest.mark.slow]

PROVENANCE = ("model", "model_revision", "prompt_hash", "code_version", "keep_ratio", "fps")
COST = ("vision_tokens", "processed_token_layers", "kv_bytes", "decode_s", "model_s")
FAILED = ("empty.mp4", "text.mp4", "sound.mp4", "nomoov.mp4", "dangling.mp4", "none.mp4")
#: Tokens of one frame: 3 x 3 pooled patches and the class token; of 10, MoD layers run 2.
FRAME_TOKENS, FRAME_TOKEN_LAYERS = 10, (10 + 2) * 3


@pytest.fixture(scope="module")
def videos(job: Job) -> list[Row]:
    return rows(job.dest, "videos")


@pytest.fixture(scope="module")
def segments(job: Job) -> list[Row]:
    return rows(job.dest, "segments")


@pytest.fixture(scope="module")
def plan(job: Job) -> list[Row]:
    return rows(job.dest, "_longreel/plan")


def test_exit_status_says_that_some_videos_failed(job: Job) -> None:
    """Guards against a script that takes a job with failed videos for a whole one."""
    assert job.run.code == 3, job.run.said


def test_schemas_are_exactly_the_declared_ones(job: Job) -> None:
    """Guards against a column that is null in one file and so gets another type."""
    assert table(job.dest, "segments").schema.equals(schemas.SEGMENTS)
    assert table(job.dest, "videos").schema.equals(schemas.VIDEOS)
    assert table(job.dest, "_longreel/plan").schema.equals(schemas.PLAN)


def test_one_row_for_each_video(job: Job, videos: list[Row]) -> None:
    """Guards against a lost bad video, and a file named twice that is done twice."""
    assert sorted(name_of(row) for row in videos) == job.sources.names
    assert len({row["video_id"] for row in videos}) == len(videos)
    assert len({row["job_id"] for row in videos}) == 1


def test_rows_lie_in_few_files(job: Job, segments: list[Row]) -> None:
    """Guards against a file per segment."""
    assert len(list((job.dest / "segments").rglob("*.parquet"))) * 3 <= len(segments)
    left = [p for p in job.dest.rglob("*") if p.is_file() and p.suffix not in (".parquet", ".json")]
    assert left == []


def test_the_plan_is_the_job(plan: list[Row], segments: list[Row]) -> None:
    """Guards against planned segments without a row, twice, or rows that nobody planned."""
    planned = {row["segment_id"]: row for row in plan}
    assert len(planned) == len(plan)
    assert sorted(row["segment_id"] for row in segments) == sorted(planned)
    for row in segments:
        asked = planned[row["segment_id"]]
        for column in ("video_id", "uri", "segment_index", "start_s", "end_s"):
            assert row[column] == asked[column]


def test_segments_cover_each_video_once(
    job: Job, videos: list[Row], segments: list[Row], plan: list[Row]
) -> None:
    """Guards against a gap, an overlap, or frames sampled twice at a border of segments."""
    for video in videos:
        mine, name = segments_of(segments, name_of(video)), name_of(video)
        assert video["n_segments"] == len(mine) or (not mine and name in FAILED)
        assert (video["n_frames"] or 0) == sum(row["n_frames"] for row in mine)
        failed = sum(row["status"] == schemas.FAILED for row in mine)
        assert (video["n_failed_segments"] or 0) == failed
        if not mine:
            continue
        assert [row["segment_index"] for row in mine] == list(range(len(mine)))
        assert mine[0]["start_s"] == 0
        assert mine[-1]["end_s"] == pytest.approx(video["duration_s"], abs=1e-6)
        for before, after in itertools.pairwise(mine):
            assert before["end_s"] == after["start_s"]
        for asked in segments_of(plan, name):
            assert asked["first_index"] == math.ceil(round(asked["start_s"] * FPS, 6))
            assert asked["end_index"] == math.ceil(round(asked["end_s"] * FPS, 6))
            assert asked["n_segments"] == len(mine)
    for name, clip in job.sources.good.items():
        video = by_name(videos)[name]
        assert video["duration_s"] == pytest.approx(float(clip.end_s), abs=0.05), name
        assert video["n_frames"] == math.ceil(round(video["duration_s"] * FPS, 6)), name
    assert len(segments_of(segments, "long.mp4")) >= 3


def test_good_videos_are_ok_and_told(job: Job, videos: list[Row], segments: list[Row]) -> None:
    """Guards against siblings harmed by a bad video, and against empty words."""
    for name, clip in job.sources.good.items():
        video = by_name(videos)[name]
        assert (video["status"], video["error"]) == (schemas.OK, None), video["error"]
        assert video["summary"].strip()
        assert video["etag"]
        assert video["codec"]
        assert video["size_bytes"] == clip.path.stat().st_size
        assert (video["width"], video["height"]) == (96, 64), name
        assert video["n_failed_segments"] == 0
        if len(clip.numbers) > 1:
            assert video["source_fps"] == pytest.approx(25, abs=0.1), name
        ends = 0.0
        for chapter in video["chapters"]:
            assert ends <= chapter["start_s"] < chapter["end_s"] <= video["duration_s"] + 1e-6
            assert chapter["title"].strip()
            assert chapter["summary"].strip()
            ends = chapter["end_s"]
        for row in segments_of(segments, name):
            assert (row["status"], row["error"]) == (schemas.OK, None)
            assert row["summary"].strip()
            assert row["attempt"] >= 1


def test_narrations_lie_in_their_segment(segments: list[Row]) -> None:
    """Guards against times counted from the segment, or from the file's late start."""
    assert sum(len(row["narrations"]) for row in segments) > len(segments)
    for row in segments:
        times = [n["time_s"] for n in row["narrations"]]
        assert times == sorted(set(times))
        assert all(row["start_s"] <= t < row["end_s"] for t in times), (row["uri"], times)
        assert all(abs(t * FPS - round(t * FPS)) < 1e-6 for t in times)
        assert all(n["text"].strip() for n in row["narrations"])


def test_keyframes_show_the_picture_of_their_time(
    job: Job, videos: list[Row], segments: list[Row]
) -> None:
    """Guards against pictures that lie on their side, are squeezed, or stand at a wrong time."""
    for name, clip in job.sources.good.items():
        seen = 0
        for row in [by_name(videos)[name], *segments_of(segments, name)]:
            start, end = row.get("start_s", 0.0), row.get("end_s", float(clip.end_s) + 0.05)
            for keyframe in row["keyframes"]:
                seen += 1
                assert start <= keyframe["time_s"] < end
                assert keyframe["jpeg"] or keyframe["uri"]
                picture = Image.open(io.BytesIO(keyframe["jpeg"])).convert("RGB")
                assert picture.width / picture.height == pytest.approx(96 / 64, rel=0.05), name
                number = read_number(np.asarray(picture))
                wanted = max(
                    n
                    for n, t in zip(clip.numbers, clip.shown_s, strict=True)
                    if float(t) <= keyframe["time_s"] + 1e-6
                )
                assert number == wanted, (name, keyframe["time_s"])
        assert seen, name


def test_provenance_is_filled_and_the_same_in_all_rows(
    videos: list[Row], segments: list[Row]
) -> None:
    """Guards against narrations whose model, prompt or code nobody can tell."""
    found = {tuple(row[column] for column in PROVENANCE) for row in [*videos, *segments]}
    assert len(found) == 1
    values = dict(zip(PROVENANCE, found.pop(), strict=True))
    assert all(values.values())
    assert values["model"] == "longreel-tiny"
    assert values["fps"] == FPS
    assert values["keep_ratio"] == pytest.approx(0.2)


def test_costs_follow_from_the_frames(videos: list[Row], segments: list[Row]) -> None:
    """Guards against figures that do not add up: people size clusters from them."""
    for row in segments:
        assert row["vision_tokens"] == FRAME_TOKENS * row["n_frames"]
        assert row["processed_token_layers"] == FRAME_TOKEN_LAYERS * row["n_frames"]
        assert (row["kv_bytes"] > 0) == (row["n_frames"] > 0)
        if row["n_frames"]:
            assert row["model_s"] > 0
            assert row["decode_s"] > 0
    for video in videos:
        mine = segments_of(segments, name_of(video))
        for column in COST:
            total = sum(row[column] for row in mine)
            assert (video[column] or 0) == pytest.approx(total), (name_of(video), column)


@pytest.mark.parametrize("name", FAILED)
def test_a_video_that_cannot_be_read_says_why(name: str, videos: list[Row]) -> None:
    """Guards against a row whose error is empty, a traceback, or the same for every kind."""
    video = by_name(videos)[name]
    assert video["status"] == schemas.FAILED
    assert re.match(r"[A-Z]\w+: \S.*\Z", video["error"]), video["error"]
    assert not any(word in video["error"] for word in NOISE)
    kinds = {n: by_name(videos)[n]["error"].split(":")[0] for n in FAILED}
    assert len({kinds[n] for n in ("empty.mp4", "text.mp4", "sound.mp4", "none.mp4")}) == 4, kinds
    assert kinds["none.mp4"] == kinds["dangling.mp4"]


@pytest.mark.parametrize("name", ["cut.mp4", "damaged.mp4"])
def test_what_lies_before_the_damage_is_kept(
    job: Job, name: str, videos: list[Row], segments: list[Row]
) -> None:
    """Guards against a whole video lost to a few bytes, and against damage passed over."""
    video = by_name(videos)[name]
    assert video["status"] == schemas.PARTIAL
    assert re.match(r"[A-Z]\w+: \S.*\Z", video["error"]), video["error"]
    assert re.search(r"\d", video["error"]), f"no place in {video['error']!r}"
    assert video["summary"].strip()
    assert 0 < video["n_frames"] < video["duration_s"] * FPS
    for row in segments_of(segments, name):
        assert (row["status"] == schemas.OK) == (row["error"] is None)
        assert (row["status"] == schemas.FAILED) == (row["n_frames"] == 0)
    if name == "cut.mp4":
        mine, whole = segments_of(segments, name)[0], segments_of(segments, "long.mp4")[0]
        for column in ("start_s", "end_s", "n_frames", "narrations", "summary", "keyframes"):
            assert mine[column] == whole[column]


def test_no_noise_in_what_a_user_sees(job: Job) -> None:
    """Guards against Ray's and torch's logs on the screen."""
    said = job.run.out + job.run.err
    assert [word for word in NOISE if word in said] == [], said
    assert str(job.dest) in job.run.out


def test_progress_has_true_totals(job: Job, videos: list[Row], plan: list[Row]) -> None:
    """Guards against guessed totals: they come from the plan."""
    totals = re.findall(r"(\d+)/(\d+) segments, (\d+)/(\d+) videos", job.run.err)
    assert {(s, v) for _, s, _, v in totals} == {(str(len(plan)), str(len(videos)))}


@pytest.mark.parametrize("name", FAILED)
def test_each_failure_is_one_plain_line(job: Job, name: str, videos: list[Row]) -> None:
    """Guards against lines folded at 80 columns where output is no terminal: grep loses them."""
    video = by_name(videos)[name]
    told = [line for line in job.run.err.splitlines() if video["error"] in line]
    assert any(video["uri"] in line for line in told), job.run.err


def test_show_tells_true_gaps(job: Job, segments: list[Row]) -> None:
    """Guards against damage in the middle told as damage at the end."""
    shown = longreel("show", str(job.dest)).out.split("damaged.mp4")[1].split("mp4")[0]
    gaps = re.findall(r"without results: (\d+):([\d.]+) to (\d+):([\d.]+)", shown)
    times = [n["time_s"] for n in segments_of(segments, "damaged.mp4")[0]["narrations"]]
    for m, s, to_m, to_s in gaps:
        start, end = int(m) * 60 + float(s), int(to_m) * 60 + float(to_s)
        assert [t for t in times if start <= t < end] == [], (gaps, times)
