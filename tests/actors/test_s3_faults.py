"""Objects behind a store that misbehaves: what comes is right, or the error says why."""

from __future__ import annotations

import io
import os
import pickle
import random
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import pyarrow as pa
import pytest

from actors import objects, s3, s3objects
from actors.decode import decode_segment
from actors.probe import probe
from actors.rowfiles import write_rows
from actors.rows import read_table
from actors.segments import plan_segments
from infra.faultyproxy import FaultyProxy, Rule
from infra.objectstore import ObjectStore
from longreel.errors import StorageError
from longreel.schemas import FAILED
from tests.videos import write_video, x264

pytestmark = [pytest.mark.objectstore, pytest.mark.waits]

TIMEOUT_S = 1.0
OPERATIONS = ("stat", "read", "write", "list", "delete")
DATA = random.Random(5).randbytes(3 * 2**20)


@pytest.fixture(scope="module")
def running(objectstore: ObjectStore) -> Iterator[FaultyProxy]:
    with FaultyProxy(objectstore.endpoint_url) as proxy:
        yield proxy


@pytest.fixture
def proxy(running: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> FaultyProxy:
    """The proxy before the store, all in order, and clients that lose patience soon."""
    for name, value in running.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LONGREEL_S3_TIMEOUT_S", str(TIMEOUT_S))
    monkeypatch.setattr(s3objects, "FIRST_PAUSE_S", 0.02)
    running.rules = ()
    running.seen.clear()
    return running


@pytest.fixture
def uri(proxy: FaultyProxy, bucket: str) -> str:
    """An object of ``DATA``."""
    objects.write_bytes(f"s3://{bucket}/folder/a", DATA)
    return f"s3://{bucket}/folder/a"


def each_operation(uri: str) -> dict[str, Callable[[], object]]:
    return {
        "stat": lambda: objects.stat_object(uri).size_bytes,
        "read": lambda: objects.read_bytes(uri),
        "write": lambda: objects.write_bytes(uri, DATA),
        "list": lambda: [o.uri for o in objects.list_objects(uri.rpartition("/")[0])],
        "delete": lambda: objects.delete_object(f"{uri}.gone"),
    }


@pytest.mark.parametrize(
    ("fault", "operation"),
    [
        *product(("SlowDown", "reset", "stall"), OPERATIONS),
        # Where the answer has a body that can come short.
        *product(("cut",), ("read", "list")),
    ],
)
def test_every_operation_gets_through_what_passes(
    proxy: FaultyProxy, uri: str, fault: str, operation: str
) -> None:
    """Guards against an operation that gives up, or answers wrongly, at the first trouble."""
    call = each_operation(uri)[operation]
    expected = call()
    proxy.rules = [Rule(fault, first=2)]
    assert call() == expected
    assert len(proxy.requests(fault=fault)) == 2
    proxy.rules = ()
    assert objects.read_bytes(uri) == DATA


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_last_error_says_what_and_how_often(
    proxy: FaultyProxy, uri: str, operation: str
) -> None:
    """Guards against an error from which nobody learns what to look at."""
    proxy.rules = [Rule("SlowDown")]
    with pytest.raises(StorageError) as failed:
        each_operation(uri)[operation]()
    said = str(failed.value)
    # An answer to HEAD has no body to say it in.
    kind = "ServiceUnavailable" if operation == "stat" else "SlowDown"
    assert said.startswith(f"{kind}: cannot {operation} ")
    assert uri.rpartition("/")[0] in said
    assert "tried 5 times" in said
    assert len(proxy.requests(fault="SlowDown")) == 5
    copy = pickle.loads(pickle.dumps(failed.value))
    assert (copy.kind, str(copy)) == (failed.value.kind, said)


@pytest.mark.parametrize("fault", ["AccessDenied", "NoSuchKey"])
def test_what_will_not_pass_is_not_tried_again(proxy: FaultyProxy, uri: str, fault: str) -> None:
    """Guards against minutes lost on objects that are not there."""
    proxy.rules = [Rule(fault)]
    with pytest.raises(StorageError):
        objects.read_bytes(uri)
    assert len(proxy.requests(fault=fault)) == 1


def test_a_broken_read_is_taken_up_where_it_broke(proxy: FaultyProxy, uri: str) -> None:
    """Guards against bytes fetched twice: on a bad line a long range would never come through."""
    third = 2**20
    proxy.rules = [Rule("reset", method="GET", at_byte=third, first=2)]
    etag = objects.stat_object(uri).etag
    assert s3objects.read(uri, 100, 3 * third - 100, etag) == DATA[100:]
    last = 3 * third - 1
    asked = [seen.range for seen in proxy.requests("GET")]
    assert asked == [f"bytes={100 + n * third}-{last}" for n in range(3)]
    assert proxy.bytes_sent("folder/a") == len(DATA) - 100


def test_many_breaks_that_each_bring_something_are_no_failure(proxy: FaultyProxy, uri: str) -> None:
    """Guards against a bound on breaks where there should be one on breaks without progress."""
    proxy.rules = [Rule("cut", method="GET", at_byte=300_000, first=9)]
    assert objects.read_bytes(uri) == DATA
    assert len(proxy.requests("GET", fault="cut")) == 9
    assert proxy.bytes_sent("folder/a") == len(DATA)


def test_an_object_replaced_between_two_parts_is_noticed(proxy: FaultyProxy, uri: str) -> None:
    """Guards against half of one version and half of another."""

    def replace() -> None:
        proxy.before("GET", "folder/a", lambda: objects.write_bytes(uri, DATA[::-1]))

    etag = objects.stat_object(uri).etag
    proxy.rules = [Rule("cut", method="GET", first=1)]
    proxy.before("GET", "folder/a", replace)
    with pytest.raises(StorageError) as failed:
        s3objects.read(uri, etag=etag)
    assert failed.value.kind == "Changed"


@pytest.mark.parametrize("other", [DATA[::-1], DATA[:100], DATA * 2], ids=len)
def test_an_object_replaced_while_it_is_read_is_read_anew(
    proxy: FaultyProxy, uri: str, other: bytes
) -> None:
    """Guards against a job that ends because its lease was renewed amid a broken read of it."""

    def replace() -> None:
        proxy.before("GET", "folder/a", lambda: objects.write_bytes(uri, other))

    proxy.rules = [Rule("cut", method="GET", first=1)]
    proxy.before("GET", "folder/a", replace)
    assert objects.read_bytes(uri) == other


def test_an_object_that_is_always_replaced_is_given_up(proxy: FaultyProxy, uri: str) -> None:
    """Guards against a read that goes on for ever, as each part of a version is something new."""

    def replace(left: int) -> None:
        if left:
            objects.write_bytes(uri, DATA + bytes([left]))
            proxy.before("GET", "folder/a", lambda: replace(left - 1))

    proxy.rules = [Rule("cut", method="GET")]
    replace(2 * s3objects.ATTEMPTS)
    with pytest.raises(StorageError, match=f"tried {s3objects.ATTEMPTS} times"):
        objects.read_bytes(uri)


@pytest.mark.parametrize("fault", ["stall", "drip"])
@pytest.mark.parametrize("at_byte", [None, 1_000_000])
def test_a_stall_or_drip_costs_about_one_timeout(
    proxy: FaultyProxy,
    uri: str,
    fault: str,
    at_byte: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Guards against a worker that hangs on a connection which is alive and useless."""
    # Long beside what a loaded machine adds. Where a body drips after a good beginning, that was
    # most of a first timeout, and a second has to pass.
    patience_s = 2 * TIMEOUT_S
    monkeypatch.setenv("LONGREEL_S3_TIMEOUT_S", str(patience_s))
    objects.stat_object(uri)  # a client that has it
    proxy.rules = [Rule(fault, method="GET", at_byte=at_byte, first=1, bytes_per_s=500)]
    started = time.monotonic()
    assert objects.read_bytes(uri) == DATA
    assert time.monotonic() - started < 3 * patience_s
    # Of this object: what another test gave up may still arrive.
    name = uri.removeprefix("s3://")
    assert len(proxy.requests("GET", name)) == 2
    assert proxy.bytes_sent(name) < len(DATA) + 600_000


@pytest.mark.parametrize("fault", ["stall", pytest.param("drip", marks=pytest.mark.long)])
def test_a_store_that_only_stalls_or_drips_fails_in_bounded_time(
    proxy: FaultyProxy, uri: str, fault: str
) -> None:
    """Guards against attempts of one layer times attempts of another."""
    proxy.rules = [Rule(fault, method="GET", bytes_per_s=500)]
    started = time.monotonic()
    with pytest.raises(StorageError) as failed:
        objects.read_bytes(uri)
    assert time.monotonic() - started < 5 * TIMEOUT_S + 3
    assert failed.value.kind == "Unreachable"
    assert "tried 5 times" in str(failed.value)
    assert uri in str(failed.value)


def test_a_slow_line_is_left_alone(proxy: FaultyProxy, uri: str) -> None:
    """Guards against a floor that cuts off honest but slow lines, again and again."""
    proxy.rules = [Rule("drip", method="GET", bytes_per_s=5 * s3objects.FLOOR_BYTES_PER_S)]
    assert s3objects.read(uri, 0, 250_000) == DATA[:250_000]
    assert len(proxy.requests("GET")) == 1


def test_connections_are_used_again_after_whole_bodies(proxy: FaultyProxy, uri: str) -> None:
    """Guards against a new connection for every range: over TLS that costs more than the range."""
    objects.stat_object(uri)
    manager = s3.client()._endpoint.http_session._manager
    (pool,) = (manager.pools[key] for key in manager.pools.keys())  # noqa: SIM118
    before = pool.num_connections
    for start in range(20):
        s3objects.read(uri, start, 1000)
    assert objects.read_bytes(uri) == DATA
    assert pool.num_connections == before


def test_keys_renewed_meanwhile_are_found(
    proxy: FaultyProxy, uri: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Guards against hours of work lost because keys in a file were renewed during them."""
    keys = tmp_path / "credentials"
    key, secret = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]

    def write(secret: str) -> None:
        keys.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")

    write("old")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(keys))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StorageError) as failed:
        objects.read_bytes(uri)
    assert failed.value.kind == "SignatureDoesNotMatch"
    write(secret)
    proxy.rules = [Rule("ExpiredToken", first=1)]
    assert objects.read_bytes(uri) == DATA


def test_expired_keys_fail_soon(proxy: FaultyProxy, uri: str) -> None:
    """Guards against an endless search for keys that are not there."""
    proxy.rules = [Rule("ExpiredToken")]
    for name, call in each_operation(uri).items():
        with pytest.raises(StorageError) as failed:
            call()
        assert failed.value.kind == "ExpiredToken", name
    assert len(proxy.requests(fault="ExpiredToken")) <= 2 * 5 + 2


def test_a_store_in_trouble_is_no_damaged_video(
    proxy: FaultyProxy, bucket: str, tmp_path: Path
) -> None:
    """Guards against a row that blames a healthy file, with half of its pictures, for good."""
    clip = write_video(tmp_path / "a.mp4", n_frames=200, options=x264())
    objects.write_bytes(f"s3://{bucket}/a.mp4", clip.path.read_bytes())
    info = probe(f"s3://{bucket}/a.mp4")
    # Of the probed one all bytes are here by now.
    uri = f"s3://{bucket}/b.mp4"
    objects.write_bytes(uri, clip.path.read_bytes())
    for at_byte in (0, info.size_bytes // 2):
        proxy.rules = [Rule("cut", method="GET", contains="b.mp4", at_byte=at_byte)]
        segment = decode_segment(
            uri,
            etag=info.etag,
            origin_pts=info.origin_pts,
            first_index=0,
            end_index=8,
            fps=2.0,
            size=(32, 32),
            is_last=True,
            duration_s=info.duration_s,
        )
        if at_byte:
            # Each try brings half of what is left, too little to count as a fair share.
            assert segment.error is None or segment.error.startswith("Unreachable: cannot read ")
            continue
        assert (segment.status, len(segment.indices)) == (FAILED, 0)
        assert (segment.error or "").startswith(f"Unreachable: cannot read {uri}: ")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_the_segments_of_an_object_read_it_once(
    proxy: FaultyProxy, bucket: str, tmp_path: Path, suffix: str
) -> None:
    """Guards against an index that each segment reads anew, and against reading past its end."""
    clip = write_video(
        tmp_path / f"a{suffix}", "mjpeg", n_frames=400, size=(960, 640), pix_fmt="yuvj420p",
        options={"qmin": "1", "qmax": "1"},
    )  # fmt: skip
    objects.write_bytes(f"s3://{bucket}/a{suffix}", clip.path.read_bytes())
    info = probe(f"s3://{bucket}/a{suffix}")
    segments = plan_segments(info, 2, 4)
    assert len(segments) == 4
    # As two processes would share them, each with a cache of its own.
    for half in (segments[::2], segments[1::2]):
        uri = f"s3://{bucket}/{half[0].index}{suffix}"
        objects.write_bytes(uri, clip.path.read_bytes())
        for cut in half:
            segment = decode_segment(
                uri,
                etag=info.etag,
                origin_pts=info.origin_pts,
                first_index=cut.first_index,
                end_index=cut.end_index,
                fps=2.0,
                size=(32, 32),
                is_last=cut is segments[-1],
                duration_s=info.duration_s,
            )
            assert segment.status == "ok", segment.error
    assert info.size_bytes > 8 * 2**20
    assert proxy.bytes_sent() <= 1.15 * info.size_bytes


def test_rows_are_read_through_trouble(proxy: FaultyProxy, bucket: str) -> None:
    """Guards against rows read by another client, with other patience and other errors."""
    schema = pa.schema([("id", pa.int64()), ("blob", pa.binary())])
    folder = f"s3://{bucket}/rows"
    for number in range(3):
        write_rows(folder, [{"id": number, "blob": DATA[: 2**20]}], schema)
    proxy.rules = [
        Rule("drip", method="GET", contains="rows/", first=1),
        Rule("SlowDown", share=0.08),
        Rule("reset", share=0.04),
        Rule("cut", method="GET", contains="rows/", share=0.1),
    ]
    table = read_table(folder, schema)
    assert sorted(table["id"].to_pylist()) == [0, 1, 2]
    assert {len(blob) for blob in table["blob"].to_pylist()} == {2**20}
    before = proxy.bytes_sent("rows/")
    proxy.rules = ()
    assert sorted(read_table(folder, schema, columns=["id"])["id"].to_pylist()) == [0, 1, 2]
    # Of each file the footer's and the column's granules; files of a real job are far larger.
    assert proxy.bytes_sent("rows/") - before < 2 * 2**20
    proxy.rules = [Rule("SlowDown", method="GET", contains="rows/")]
    with pytest.raises(StorageError, match=r"SlowDown: cannot read s3://.*tried 5 times"):
        read_table(folder, schema)


def test_a_demuxer_s_reader_survives(proxy: FaultyProxy, uri: str) -> None:
    """Guards against a reader that hands a short block to a demuxer as if the file ended."""
    proxy.rules = [Rule("cut", method="GET", share=0.5), Rule("SlowDown", method="GET", share=0.3)]
    with objects.open_object(uri) as file:
        picked = random.Random(1)
        for _ in range(30):
            start, length = picked.randrange(len(DATA)), picked.randrange(1, 200_000)
            file.seek(start, io.SEEK_SET)
            assert file.read(length) == DATA[start : start + length]
