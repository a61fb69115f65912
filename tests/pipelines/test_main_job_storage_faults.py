"""Whole jobs from bucket to bucket behind a store that misbehaves, and onto a disk that is full."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from ray.cluster_utils import Cluster

from actors.rows import parquet_files, read_rows
from infra.faultyproxy import FaultyProxy, Rule
from infra.objectstore import ObjectStore
from longreel.schemas import FAILED, OK, SEGMENTS, VIDEOS
from tests.pipelines.job_runs import OPTIONS, OWN, Row, Run, by_name, longreel, rows
from tests.videos import write_video, x264

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.objectstore, pytest.mark.long]

BUCKET = "storage-faults"
#: Frames of the healthy videos at 25 a second: one, one and three segments.
LENGTHS = {"a.mp4": 100, "b.mp4": 60, "long.mp4": 300}
PLAN = "_longreel/plan/"
TIMEOUT = "LONGREEL_S3_TIMEOUT_S"


@dataclass(frozen=True)
class Place:
    """A bucket with videos under ``in/`` behind the proxy, and the rows of an undisturbed job."""

    proxy: FaultyProxy
    address: str
    s3: Any
    clips: Path
    calm: dict[str, dict[str, Row]]

    def run(self, dest: str, *more_sources: str) -> Run:
        """A job from ``in/`` and more sources to ``dest``."""
        return summarize(self.address, f"s3://{BUCKET}/in/", *more_sources, dest=dest)

    def equal_calm(self, found: dict[str, dict[str, Row]]) -> None:
        """The rows of ``in/`` are those of the undisturbed job."""
        for part, expected in self.calm.items():
            mine = {key: row for key, row in found[part].items() if "/in/" in row["uri"]}
            assert mine.keys() == expected.keys()
            for key, row in mine.items():
                assert row == expected[key]


def out(name: str) -> str:
    return f"s3://{BUCKET}/out/{name}"


def summarize(address: str, *sources: str, dest: str) -> Run:
    arguments = ["summarize", *sources, "-o", dest, "--address", address, *OPTIONS]
    run = longreel(*arguments, variables={TIMEOUT: os.environ[TIMEOUT]})
    assert "Traceback" not in run.out + run.err, run.said
    return run


def results(dest: str) -> dict[str, dict[str, Row]]:
    """Rows without what each run has of its own, by id; fails when an id stands twice."""
    found = {}
    for part, schema, key in (
        ("segments", SEGMENTS, "segment_id"),
        ("videos", VIDEOS, "video_id"),
    ):
        listed = read_rows(f"{dest}/{part}", schema)
        found[part] = {r[key]: {k: v for k, v in r.items() if k not in OWN} for r in listed}
        assert len(found[part]) == len(listed)
    return found


def last_words(run: Run) -> str:
    """The line with which a failed job ends."""
    assert run.code == 1, run.said
    lines = [line for line in run.err.splitlines() if line.startswith("longreel: ")]
    assert len(lines) == 1, run.said
    assert run.err.strip().endswith(lines[0])
    return lines[0]


@pytest.fixture(scope="module")
def proxy(objectstore: ObjectStore) -> Iterator[FaultyProxy]:
    """What this process and all that it starts take for the store."""
    with (
        FaultyProxy(objectstore.endpoint_url, seed=3) as proxy,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in {**proxy.environment(), TIMEOUT: "3"}.items():
            patch.setenv(name, value)
        yield proxy


@pytest.fixture(scope="module")
def address(proxy: FaultyProxy) -> Iterator[str]:
    """One cluster for all jobs; the model that the first one starts stays for the others."""
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 6, "include_dashboard": False}
    )
    try:
        yield cluster.address
    finally:
        cluster.shutdown()


@pytest.fixture(scope="module")
def running(
    objectstore: ObjectStore,
    proxy: FaultyProxy,
    address: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Place:
    s3 = boto3.client("s3", endpoint_url=objectstore.endpoint_url)
    s3.create_bucket(Bucket=BUCKET)
    clips = tmp_path_factory.mktemp("clips")
    for name, n_frames in LENGTHS.items():
        clip = write_video(clips / name, n_frames=n_frames, options=x264())
        s3.upload_file(str(clip.path), BUCKET, f"in/{name}")
    calm = summarize(address, f"s3://{BUCKET}/in/", dest=out("calm"))
    assert calm.code == 0, calm.said
    return Place(proxy, address, s3, clips, results(out("calm")))


@pytest.fixture
def place(running: Place) -> Place:
    running.proxy.rules = ()
    running.proxy.seen.clear()
    return running


def test_a_bad_line_changes_nothing(place: Place) -> None:
    """Guards against rows that fail, differ or are missing because a network was a network."""
    place.proxy.rules = [
        Rule("stall", method="GET", contains="in/long.mp4", skip=1, first=1),
        Rule("drip", method="GET", contains="in/a.mp4", skip=1, first=1),
        Rule("stall", method="PUT", contains="out/noisy/segments", first=1),
        Rule("SlowDown", share=0.1),
        Rule("reset", share=0.05),
        Rule("cut", method="GET", share=0.1),
    ]
    run = place.run(out("noisy"))
    assert run.code == 0, run.said
    for fault in ("stall", "drip", "SlowDown", "reset", "cut"):
        assert place.proxy.requests(fault=fault), fault
    place.equal_calm(results(out("noisy")))


def test_bad_objects_fail_alone_and_are_tried_again(place: Place) -> None:
    """Guards against a job ended by one object, and against a bad hour that stays for ever.

    After the plan one object can no longer be read, one is gone and one is another. The same
    command does what failed once the store is well again; what is no video stays what it is.
    """
    names = ("fails.mp4", "gone.mp4", "swapped.mp4")
    for name in names:
        place.s3.upload_file(str(place.clips / "a.mp4"), BUCKET, f"bad/{name}")
    place.s3.put_object(Bucket=BUCKET, Key="bad/text.mp4", Body=b"This is no video.\n" * 200)

    def break_them() -> None:
        place.s3.delete_object(Bucket=BUCKET, Key="bad/gone.mp4")
        place.s3.upload_file(str(place.clips / "b.mp4"), BUCKET, "bad/swapped.mp4")
        place.proxy.rules = [Rule("SlowDown", method="GET", contains="bad/fails.mp4")]

    place.proxy.before("PUT", PLAN, break_them)
    first = place.run(out("bad"), f"s3://{BUCKET}/bad/")
    assert first.code == 3, first.said
    found = results(out("bad"))
    place.equal_calm(found)
    errors = {n: r["error"] for n, r in by_name(list(found["videos"].values())).items()}
    uri = f"s3://{BUCKET}/bad"
    assert errors["fails.mp4"].startswith(f"SlowDown: cannot read {uri}/fails.mp4: ")
    assert "tried 5 times" in errors["fails.mp4"]
    assert errors["gone.mp4"].startswith(f"NotFound: cannot stat {uri}/gone.mp4: ")
    assert errors["swapped.mp4"].startswith(f"Changed: cannot open {uri}/swapped.mp4: ")
    assert errors["text.mp4"].startswith("NotAVideo: ")
    failed = {row["uri"] for row in found["segments"].values() if row["status"] == FAILED}
    assert failed == {f"{uri}/{name}" for name in names}

    place.proxy.rules = ()
    place.s3.upload_file(str(place.clips / "a.mp4"), BUCKET, "bad/gone.mp4")
    second = place.run(out("bad"), f"s3://{BUCKET}/bad/")
    assert second.code == 3, second.said
    found = results(out("bad"))
    place.equal_calm(found)
    videos = by_name(list(found["videos"].values()))
    assert {n for n, row in videos.items() if row["status"] != OK} == {"text.mp4"}
    assert set(videos) == {*LENGTHS, *names, "text.mp4"}
    assert {row["status"] for row in found["segments"].values()} == {OK}
    assert len(found["segments"]) == len(place.calm["segments"]) + len(names)


def test_expired_keys_end_the_job_and_no_video(place: Place) -> None:
    """Guards against thousands of failed rows that count as finished, for want of a token."""

    def expire() -> None:
        place.proxy.rules = [Rule("ExpiredToken")]

    def expire_amid_the_work() -> None:
        place.proxy.before("GET", "in/long.mp4", expire)

    place.proxy.before("PUT", PLAN, expire_amid_the_work)
    first = place.run(out("expired"))
    said = last_words(first)
    assert "ExpiredToken: cannot " in said
    assert "the session token has expired" in said
    assert "the same command goes on from here" in said
    place.proxy.rules = ()
    found = results(out("expired"))
    assert not found["videos"]
    assert all(row["status"] == OK for row in found["segments"].values())
    second = place.run(out("expired"))
    assert second.code == 0, second.said
    place.equal_calm(results(out("expired")))


def test_keys_that_expire_before_the_plan(place: Place) -> None:
    """Guards against a plan in which every video has failed."""
    place.proxy.rules = [Rule("ExpiredToken", contains="in/")]
    said = last_words(place.run(out("early")))
    assert "ExpiredToken: cannot stat s3://" in said
    assert parquet_files(f"{out('early')}/_longreel/plan") == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip(f"mount is not permitted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_ends_the_job_until_there_is_space(place: Place, small_disk: Path) -> None:
    """Guards against half-written files, and against rows lost to a disk that was full once."""
    dest, filler = small_disk / "rows", small_disk / "filler"

    # The plan still fits, the pictures of the rows do not.
    filler.write_bytes(bytes(2**20 - 48 * 1024))
    first = place.run(str(dest))
    said = last_words(first)
    # Rows are written as they come: which file is the first not to fit is a matter of time.
    assert re.search(rf"ENOSPC: cannot write {re.escape(str(dest))}/(segments|videos)/", said)
    assert "No space left on device" in said
    left = [path for path in dest.rglob("*") if path.is_file()]
    assert {path.suffix for path in left} == {".json", ".parquet"}
    assert not any(path.name.startswith(".") for path in left)
    assert list((dest / "_longreel" / "plan").glob("*.parquet"))
    filler.unlink()
    second = place.run(str(dest))
    assert second.code == 0, second.said
    assert len(rows(dest, "segments")) == len(place.calm["segments"])
    place.equal_calm(results(str(dest)))
