"""Settings, errors and broken connections of the S3 client; threads and forks that share it.

Guards against credentials and addresses that are wrong and blamed on a video, and clients that
break when they are shared.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context

import pytest
from botocore.exceptions import ClientError

from actors import objects, s3, s3objects
from infra.objectstore import ObjectStore
from longreel.errors import StorageError

pytestmark = pytest.mark.waits


def kind_of(error: pytest.ExceptionInfo[StorageError]) -> str:
    assert "\n" not in str(error.value)
    return error.value.kind


@pytest.mark.objectstore
@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "s3cr3t-and-wrong"}, "SignatureDoesNotMatch"),
        ({"AWS_PROFILE": "no-such-profile"}, "NoCredentials"),
        ({"LONGREEL_S3_ADDRESSING_STYLE": "sideways"}, "BadSetting"),
        ({"LONGREEL_S3_TIMEOUT_S": "soon"}, "BadSetting"),
        ({"LONGREEL_S3_TIMEOUT_S": "-1"}, "BadSetting"),
        ({"LONGREEL_S3_TIMEOUT_S": "nan"}, "BadSetting"),
        ({"AWS_ENDPOINT_URL": "http://user:s3cr3t@:x"}, "BadSetting"),
    ],
)
def test_wrong_settings(
    bucket: str, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], kind: str
) -> None:
    uri = f"s3://{bucket}/x"
    objects.write_bytes(uri, b"")
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    for action in (objects.stat_object, objects.read_bytes):
        with pytest.raises(StorageError) as error:
            action(uri)
        assert kind_of(error) == kind
        assert "s3cr3t" not in str(error.value)


def test_a_wrong_region_names_the_right_one(monkeypatch: pytest.MonkeyPatch) -> None:
    # boto3 follows most of these by itself, so the answer is made here.
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    answer = {"Error": {"Code": "AuthorizationHeaderMalformed", "Region": "us-west-2"}}
    error = s3.storage_error(ClientError(answer, "GetObject"), "read", "s3://b/k")
    assert error.kind == "WrongRegion"
    assert "asked in region eu-north-1, it is in us-west-2" in str(error)


@pytest.mark.objectstore
def test_boto_follows_a_bucket_to_its_region(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"s3://{bucket}/x"
    objects.write_bytes(uri, b"")
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    assert objects.stat_object(uri).size_bytes == 0
    assert objects.read_bytes(uri) == b""


@pytest.mark.objectstore
def test_credentials_without_rights_or_none(
    objectstore: ObjectStore, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"s3://{bucket}/x"
    objects.write_bytes(uri, b"")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", objectstore.guest_access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", objectstore.guest_secret_key)
    with pytest.raises(StorageError) as error:
        objects.stat_object(uri)
    assert kind_of(error) == "AccessDenied"
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    for action in (objects.stat_object, objects.arrow_filesystem):
        with pytest.raises(StorageError) as error:
            action(uri)
        assert kind_of(error) == "NoCredentials"


@pytest.mark.slow
def test_a_closed_port_is_unreachable_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://user:s3cr3t@127.0.0.1:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    started = time.monotonic()
    with pytest.raises(StorageError) as error:
        objects.stat_object("s3://bucket/key")
    assert kind_of(error) == "Unreachable"
    assert f"http://127.0.0.1:{port}" in str(error.value)
    assert "s3cr3t" not in str(error.value)
    assert time.monotonic() - started < 20


@pytest.mark.slow
def test_a_read_goes_on_where_the_connection_broke(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that drops its first two answers half way, as networks do."""
    server = socket.create_server(("127.0.0.1", 0))
    asked: list[bytes] = []

    def answer() -> None:
        for offered, sent in ((10, b"01234"), (5, b"56"), (3, b"789")):
            connection, _ = server.accept()
            with connection:
                asked.append(connection.recv(65536))
                head = f"HTTP/1.1 206 Partial Content\r\nContent-Length: {offered}\r\n"
                connection.sendall(head.encode() + b"Connection: close\r\n\r\n" + sent)

    thread = threading.Thread(target=answer)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    assert s3objects.read("s3://bucket/key", 5, 10, "tag") == b"0123456789"
    thread.join()
    server.close()
    for request, wanted in zip(asked, ("5-14", "10-14", "12-14"), strict=True):
        assert f"bytes={wanted}\r\n".encode() in request
        assert b'"tag"' in request


@pytest.mark.objectstore
def test_many_threads_share_one_client(bucket: str) -> None:
    def work(number: int) -> bytes:
        uri = f"s3://{bucket}/{number}"
        objects.write_bytes(uri, str(number).encode())
        return objects.read_bytes(uri)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(24))) == [str(n).encode() for n in range(24)]
    assert s3.client() is s3.client()


@pytest.mark.objectstore
def test_a_forked_child_has_its_own_client(bucket: str) -> None:
    uri = f"s3://{bucket}/x"
    objects.write_bytes(uri, b"x")
    with get_context("fork").Pool(2) as pool:
        assert pool.map(objects.read_bytes, [uri] * 4) == [b"x"] * 4
    assert objects.read_bytes(uri) == b"x"
