"""Objects by uri: the same contract for local files and for a real S3 API.

Guards against storage of which one kind behaves unlike the other: a job that works on disk and
fails in a bucket, or takes hidden, missing or replaced objects for its own.
"""

from __future__ import annotations

import io
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from actors import objects
from actors.granules import GRANULE_BYTES
from actors.keepout import KEEP_OUT
from infra.objectstore import ObjectStore
from longreel.errors import StorageError

MIB = 1024 * 1024


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.objectstore)])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder to write to, on disk and in S3."""
    if request.param == "local":
        return str(tmp_path)
    return f"s3://{request.getfixturevalue('bucket')}/base"


def kind_of(error: pytest.ExceptionInfo[StorageError]) -> str:
    assert "\n" not in str(error.value)
    return error.value.kind


@pytest.mark.slow
def test_write_read_stat_delete(base: str) -> None:
    uri = objects.join_uri(base, "dir one", "ü#1?%20+.bin")
    assert not objects.exists(uri)
    objects.write_bytes(uri, b"first")
    first = objects.stat_object(uri)
    assert (first.uri, first.size_bytes) == (uri, 5)
    assert objects.read_bytes(uri) == b"first"
    objects.write_bytes(uri, b"second")
    assert objects.read_bytes(uri) == b"second"
    assert objects.stat_object(uri).etag != first.etag
    objects.write_bytes(uri, b"")
    assert objects.read_bytes(uri) == b""
    objects.delete_object(uri)
    objects.delete_object(uri)
    assert not objects.exists(uri)


@pytest.mark.slow
def test_listing_is_recursive_sorted_and_leaves_hidden_names_out(base: str) -> None:
    names = ["a.mp4", "a/z.mp4", "a b.mp4", "b/c/d.mp4", "ß.mp4"]
    hidden = [".x.mp4", "_longreel/plan", "b/_t/x.mp4", "b/.git/x"]
    for name in names + hidden:
        objects.write_bytes(objects.join_uri(base, name), name.encode())
    found = list(objects.list_objects(base))
    assert [f.uri for f in found] == sorted(objects.join_uri(base, n) for n in names)
    assert all(f.size_bytes == len(f.uri[len(base) + 1 :].encode()) for f in found)
    assert found[0] == objects.stat_object(found[0].uri)
    everything = {f.uri for f in objects.list_objects(base, hidden=True)}
    assert everything == {objects.join_uri(base, n) for n in names + hidden}


@pytest.mark.objectstore
def test_an_s3_folder_is_not_a_prefix_of_a_name(bucket: str) -> None:
    for key in ("cam1/a", "cam10/b", "cam1.txt", "_odd/c"):
        objects.write_bytes(f"s3://{bucket}/{key}", b"")
    listed = [f.uri for f in objects.list_objects(f"s3://{bucket}/cam1")]
    assert listed == [f"s3://{bucket}/cam1/a"]
    listed = [f.uri for f in objects.list_objects(f"s3://{bucket}/cam1", whole_names=False)]
    assert listed == [f"s3://{bucket}/{key}" for key in ("cam1.txt", "cam1/a", "cam10/b")]
    # A prefix that names the hidden folder itself is meant.
    assert [f.uri for f in objects.list_objects(f"s3://{bucket}/_odd/")] == [
        f"s3://{bucket}/_odd/c"
    ]


@pytest.mark.slow
def test_reading_anywhere_gives_the_same_bytes_as_memory(base: str) -> None:
    data = random.Random(1).randbytes(3 * MIB + 12345)
    uri = objects.join_uri(base, "data")
    objects.write_bytes(uri, data)
    memory, chance = io.BytesIO(data), random.Random(2)
    with objects.open_object(uri, buffer_bytes=MIB) as reader:
        assert reader.size == len(data)
        for _ in range(60):
            offset = chance.choice([chance.randrange(len(data)), len(data) - 3, len(data), 0])
            length = chance.choice([0, 1, 1000, 70_000, GRANULE_BYTES, 2 * MIB])
            assert reader.seek(offset) == memory.seek(offset)
            assert reader.read(length) == memory.read(length)
            assert reader.tell() == memory.tell()
        assert reader.seek(-10, io.SEEK_END) == len(data) - 10
        assert reader.read() == data[-10:]
        assert reader.seek(100, io.SEEK_END) == len(data) + 100
        assert reader.read(5) == b""
        buffer = bytearray(7)
        reader.seek(0)
        assert reader.readinto(buffer) == 7
        assert bytes(buffer) == data[:7]
    assert reader.closed
    with pytest.raises(ValueError, match="closed"):
        reader.read(1)


def test_missing_things_are_not_found(base: str) -> None:
    missing = objects.join_uri(base, "none.mp4")
    for action in (objects.stat_object, objects.open_object, objects.read_bytes):
        with pytest.raises(StorageError) as error:
            action(missing)
        assert kind_of(error) == "NotFound"
        assert missing in str(error.value)


def test_many_are_read_side_by_side(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards starts and lists against the time that a far store takes, once for each object."""
    uris = [objects.join_uri(base, str(number)) for number in range(4)]
    for number in (0, 1, 3):
        objects.write_bytes(uris[number], b"%d" % number)
    read, together = objects.read_bytes, threading.Barrier(4)

    def slow(uri: str) -> bytes:
        together.wait(10)
        return read(uri)

    monkeypatch.setattr(objects, "read_bytes", slow)
    assert list(objects.read_many(uris)) == [b"0", b"1", None, b"3"]


def test_a_wrong_etag_is_told_when_opening(base: str) -> None:
    uri = objects.join_uri(base, "v")
    objects.write_bytes(uri, b"one")
    etag = objects.stat_object(uri).etag
    with objects.open_object(uri, etag=etag) as reader:
        assert reader.read() == b"one"
    objects.write_bytes(uri, b"other")
    with pytest.raises(StorageError) as error:
        objects.open_object(uri, etag=etag)
    assert kind_of(error) == "Changed"


def video(seconds: int) -> bytes:
    """An MP4 whose index lies at its end, as most writers leave it."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.bit_rate = 320, 240, 8_000_000
        noise = np.random.default_rng(3)
        for _ in range(seconds * 10):
            picture = noise.integers(0, 255, (240, 320, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


@pytest.mark.slow
def test_a_demuxer_reads_its_share_and_nothing_twice(base: str) -> None:
    uri = objects.join_uri(base, "video.mp4")
    data = video(12)
    assert len(data) > 6 * MIB
    objects.write_bytes(uri, data)
    with objects.open_object(uri) as reader, av.open(reader, mode="r") as container:
        assert container.duration == 12_000_000
        assert reader.bytes_read < MIB
        frames = sum(1 for _ in container.decode(video=0))
        assert frames == 120
        # Local reads repeat little things, and the kernel has them.
        assert reader.bytes_read < 1.15 * len(data)


@pytest.mark.objectstore
def test_a_replaced_object_is_told_amid_reading(bucket: str) -> None:
    uri = f"s3://{bucket}/v"
    objects.write_bytes(uri, bytes(2 * MIB))
    with objects.open_object(uri) as reader:
        reader.read(10)
        objects.write_bytes(uri, b"\1" * (2 * MIB))
        reader.seek(MIB)
        with pytest.raises(StorageError) as error:
            reader.read(10)
        assert kind_of(error) == "Changed"
        objects.delete_object(uri)
        with pytest.raises(StorageError) as error:
            reader.read(10)
        assert kind_of(error) == "NotFound"


@pytest.mark.objectstore
def test_a_bucket_that_is_not_there(objectstore: ObjectStore) -> None:
    for action in (
        objects.stat_object,
        objects.read_bytes,
        lambda uri: objects.write_bytes(uri, b""),
        lambda uri: list(objects.list_objects(uri)),
    ):
        with pytest.raises(StorageError) as error:
            action("s3://nobody-made-this/x")
        assert kind_of(error) == "NoSuchBucket"
        assert "s3://nobody-made-this/x" in str(error.value)


@pytest.mark.slow
def test_arrow_reads_what_we_write_and_the_other_way(base: str) -> None:
    table = pa.table({"uri": ["a", "b"]})
    filesystem, path = objects.arrow_filesystem(objects.join_uri(base, "data set"))
    filesystem.create_dir(path, recursive=True)
    pq.write_table(table, f"{path}/part.parquet", filesystem=filesystem)
    stored = objects.read_bytes(objects.join_uri(base, "data set", "part.parquet"))
    assert pq.read_table(io.BytesIO(stored)).equals(table)
    objects.write_bytes(objects.join_uri(base, "data set", "other.parquet"), stored)
    assert ds.dataset(path, filesystem=filesystem).count_rows() == 4


def test_uris(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    here = str(tmp_path.resolve())
    assert objects.normalize_uri("a/../b c") == f"{here}/b c"
    assert objects.normalize_uri(f"file://{here}/b%20c") == f"{here}/b c"
    assert objects.normalize_uri("s3://bucket/a b//c%20") == "s3://bucket/a b//c%20"
    assert objects.join_uri("s3://bucket/a/", "b", "c") == "s3://bucket/a/b/c"
    assert objects.join_uri("s3://bucket", "b") == "s3://bucket/b"
    assert objects.join_uri("s3://bucket/a/b", "../c") == "s3://bucket/a/c"
    assert objects.join_uri("/a/b", "../c", "d") == "/a/c/d"
    for bad in (
        "",
        "gs://b/k",
        "file:///a%00b",
        "file://host/a",
        "https://u:s3cr3t@h/v.mp4?X-Amz-Signature=s3cr3t",
        "s3:///k",
    ):
        with pytest.raises(StorageError) as error:
            objects.normalize_uri(bad)
        assert kind_of(error) == "UnsupportedUri"
        assert "s3cr3t" not in str(error.value)
    with pytest.raises(StorageError):
        objects.join_uri("s3://bucket/a", "../../b")


def test_what_a_process_is_kept_out_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a way into the state store that a look at names alone does not see."""
    store, mine = tmp_path / "store", tmp_path / "mine"
    for folder in (store, mine):
        folder.mkdir()
        (folder / "x").write_bytes(b"x")
    (tmp_path / "link").symlink_to(store)
    (mine / "link").symlink_to(store / "x")
    (tmp_path / "store2").touch()
    monkeypatch.setenv(KEEP_OUT, str(tmp_path / "link"))
    ways = (f"{store}/x", f"{tmp_path}/link/x", f"{mine}/link", f"{mine}/../store/x", str(store))
    calls: tuple[Callable[[str], object], ...] = (
        objects.stat_object,
        objects.exists,
        objects.open_object,
        objects.read_bytes,
        objects.delete_object,
        objects.arrow_filesystem,
        lambda uri: objects.write_bytes(uri, b""),
        lambda uri: list(objects.list_objects(uri)),
    )
    for way in ways:
        for call in calls:
            with pytest.raises(StorageError) as error:
                call(way)
            assert kind_of(error) == "AccessDenied"
    assert (store / "x").read_bytes() == b"x"
    assert objects.read_bytes(f"{mine}/x") == b"x"
    assert objects.read_bytes(f"{tmp_path}/store2") == b""
    monkeypatch.setenv(KEEP_OUT, "s3://bucket/state")
    for uri in ("s3://bucket/state/x", "s3://bucket//state/x", "s3://bucket/y/../state"):
        with pytest.raises(StorageError, match="AccessDenied"):
            objects.read_bytes(uri)
    monkeypatch.setenv(KEEP_OUT, "")
    assert objects.read_bytes(f"{store}/x") == b"x"


def test_local_oddities(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.mp4").write_bytes(b"a")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "loop").symlink_to(tmp_path)
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.mp4")
    found = {f.uri.removeprefix(f"{tmp_path}/"): f for f in objects.list_objects(str(tmp_path))}
    assert sorted(found) == ["gone.mp4", "link/a.mp4", "real/a.mp4"]
    assert found["gone.mp4"].etag == ""
    with pytest.raises(StorageError) as error:
        objects.stat_object(str(tmp_path))
    assert kind_of(error) == "NotAFile"
    with pytest.raises(StorageError) as error:
        objects.open_object(str(tmp_path / "pipe.mp4"))
    assert kind_of(error) == "NotAFile"
    with pytest.raises(StorageError) as error:
        list(objects.list_objects(str(tmp_path / "none")))
    assert kind_of(error) == "NotFound"
    with pytest.raises(StorageError) as error:
        objects.write_bytes(str(tmp_path / "real" / "a.mp4" / "x"), b"")
    assert kind_of(error) in ("NotFound", "EEXIST")
    objects.write_bytes(str(tmp_path / ("n" * 255)), b"")
    assert not [p for p in tmp_path.iterdir() if p.name.endswith(".part")]
