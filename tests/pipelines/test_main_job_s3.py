"""A job from a bucket into a bucket: what it does on local files, it does there."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import boto3
import pyarrow.parquet as pq
import pytest

from infra.objectstore import ObjectStore
from longreel import schemas
from tests.pipelines.conftest import Job
from tests.pipelines.job_runs import (
    NOISE,
    OPTIONS,
    Row,
    Run,
    by_name,
    complaint,
    longreel,
    name_of,
    rows,
    segments_of,
)

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.objectstore]

NAMES = ("b.mp4", "r90.mp4", "vp9 100% ü#?.webm")
#: What of a row depends on the video's bytes and the recipe alone.
CONTENT = (
    "segment_index",
    "start_s",
    "end_s",
    "n_frames",
    "status",
    "error",
    "narrations",
    "summary",
    "keyframes",
    "vision_tokens",
    "processed_token_layers",
    "model_revision",
    "prompt_hash",
)
VIDEO_CONTENT = ("duration_s", "width", "height", "codec", "summary", "chapters", "keyframes")


@dataclass(frozen=True)
class StoredJob:
    """A finished job from bucket to bucket, and its rows copied here byte by byte."""

    bucket: str
    run: Run
    rows: Path

    @property
    def dest(self) -> str:
        return f"s3://{self.bucket}/out/rows"


@pytest.fixture(scope="module")
def stored(
    objectstore: ObjectStore, job: Job, tmp_path_factory: pytest.TempPathFactory
) -> StoredJob:
    """Good videos under a prefix, a manifest with a missing entry, and a bucket that is not."""
    bucket, s3 = "main-job", boto3.client("s3", endpoint_url=objectstore.endpoint_url)
    s3.create_bucket(Bucket=bucket)
    for name in NAMES:
        s3.upload_file(str(job.sources.good[name].path), bucket, f"in/deep er/{name}")
    s3.upload_file(str(job.sources.good["long.mp4"].path), bucket, "more/long.mp4")
    s3.upload_file(str(job.sources.good["long.mp4"].path), bucket, "inner/unasked.mp4")
    folder = tmp_path_factory.mktemp("stored")
    manifest = folder / "list.csv"
    manifest.write_text(
        f"title,uri\nfirst,s3://{bucket}/more/long.mp4\nsecond,s3://{bucket}/more/gone.mp4\n"
    )
    given = [f"s3://{bucket}/in/", str(manifest), "s3://no-such-bucket/videos"]
    run = longreel("summarize", *given, "-o", f"s3://{bucket}/out/rows", *OPTIONS)
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="out/"):
        for entry in page.get("Contents", []):
            path = folder / entry["Key"]
            path.parent.mkdir(parents=True, exist_ok=True)
            s3.download_file(bucket, entry["Key"], str(path))
    return StoredJob(bucket, run, folder / "out" / "rows")


@pytest.fixture(scope="module")
def videos(stored: StoredJob) -> list[Row]:
    assert (stored.rows / "videos").is_dir(), stored.run.said
    return rows(stored.rows, "videos")


def test_it_finishes_and_says_that_some_failed(stored: StoredJob) -> None:
    """Guards against a job ended by one bucket that is not there."""
    assert stored.run.code == 3, stored.run.said
    assert stored.dest in stored.run.out
    assert "Traceback" not in stored.run.out + stored.run.err


def test_a_prefix_is_a_folder(stored: StoredJob, videos: list[Row]) -> None:
    """Guards against ``in/`` taking ``inner/`` along, and keys mangled on the way to a row."""
    prefix = f"s3://{stored.bucket}"
    ok = sorted(row["uri"] for row in videos if row["status"] == schemas.OK)
    assert ok == sorted([*(f"{prefix}/in/deep er/{n}" for n in NAMES), f"{prefix}/more/long.mp4"])


def test_what_is_missing_has_a_row_that_names_it(stored: StoredJob, videos: list[Row]) -> None:
    """Guards against missing objects and buckets dropped in silence."""
    failed = {row["uri"]: row["error"] for row in videos if row["status"] == schemas.FAILED}
    assert len(failed) == 2, failed
    assert f"s3://{stored.bucket}/more/gone.mp4" in failed
    (wrong,) = (uri for uri in failed if "no-such-bucket" in uri)
    assert "no-such-bucket" in failed[wrong]
    for error in failed.values():
        assert "\n" not in error
        assert not any(word in error for word in NOISE)


def test_rows_equal_those_of_local_files(stored: StoredJob, videos: list[Row], job: Job) -> None:
    """Guards against ranged reads that change what is decoded, and batches that change words."""
    theirs, ours = rows(stored.rows, "segments"), rows(job.dest, "segments")
    local = by_name(rows(job.dest, "videos"))
    for name in (*NAMES, "long.mp4"):
        there, here = segments_of(theirs, name), segments_of(ours, name)
        assert len(there) == len(here) > 0
        for one, other in zip(there, here, strict=True):
            for column in CONTENT:
                assert one[column] == other[column], (name, column)
        for column in VIDEO_CONTENT:
            (video,) = (row for row in videos if name_of(row) == name)
            assert video[column] == local[name][column], (name, column)
    assert pq.ParquetDataset(str(stored.rows / "segments")).read().schema.equals(schemas.SEGMENTS)


def test_secrets_reach_neither_rows_nor_words(
    stored: StoredJob, objectstore: ObjectStore, videos: list[Row]
) -> None:
    """Guards against credentials in job metadata, errors or progress lines."""
    secret = objectstore.secret_key
    everything = [stored.run.out, stored.run.err, str(videos), str(rows(stored.rows, "segments"))]
    everything += [p.read_text() for p in stored.rows.rglob("*.json")]
    assert not any(secret in text for text in everything)


def test_show_and_report_read_the_bucket(stored: StoredJob, tmp_path: Path) -> None:
    """Guards against results that can only be looked at after copying them here."""
    shown = longreel("show", stored.dest)
    assert shown.code == 0, shown.said
    page = tmp_path / "report.html"
    reported = longreel("report", stored.dest, "-o", str(page))
    assert reported.code == 0, reported.said
    html = page.read_text()
    for name in ("b.mp4", "r90.mp4", "long.mp4", "gone.mp4", "100%"):
        assert name in shown.out
        assert name in html
    assert html.count("data:image/jpeg") >= len(NAMES)


def test_a_wrong_bucket_alone(objectstore: ObjectStore, tmp_path: Path) -> None:
    """Guards against a traceback of the S3 client, and a cluster started for nothing."""
    run = longreel("summarize", "s3://no-such-bucket/videos", "-o", str(tmp_path / "rows"))
    assert run.code == 2, run.said
    assert "no-such-bucket" in complaint(run)
    assert not (tmp_path / "rows").exists()


def test_a_wrong_bucket_to_write_to(objectstore: ObjectStore, job: Job) -> None:
    """Guards against hours of work whose rows then have nowhere to go."""
    source = str(job.sources.good["b.mp4"].path)
    try:
        run = longreel("summarize", source, "-o", "s3://no-such-bucket/rows", timeout_s=60)
    except subprocess.TimeoutExpired:
        pytest.fail("a place that is not there is found only after a minute")
    assert run.code in (1, 2), run.said
    assert "no-such-bucket" in complaint(run)
    assert "starting" not in run.err
