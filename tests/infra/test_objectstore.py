"""The store itself: what S3 clients need of it, and that it leaves nothing behind.

Guards against tests on S3 that pass because the store under them is no S3, and against servers and
folders that stay behind.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import boto3
import pyarrow.fs
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from infra.objectstore import ObjectStore, ObjectStoreError
from infra.swiftserver import MemoryXattr

pytestmark = pytest.mark.objectstore
ROOT = Path(__file__).resolve().parents[2]
MIB = 1024 * 1024


def client(store: ObjectStore, **changes: str) -> Any:
    settings = {
        "endpoint_url": store.endpoint_url,
        "aws_access_key_id": store.access_key,
        "aws_secret_access_key": store.secret_key,
        "region_name": store.region,
    }
    return boto3.client(
        "s3", config=Config(retries={"total_max_attempts": 1}), **settings | changes
    )


def code(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


def test_put_get_range_list_copy_and_delete(objectstore: ObjectStore, bucket: str) -> None:
    s3 = client(objectstore)
    data = os.urandom(100_000)
    put = s3.put_object(Bucket=bucket, Key="a/ü b+c.bin", Body=data, Metadata={"who": "me"})
    assert put["ETag"] == f'"{hashlib.md5(data).hexdigest()}"'
    got = s3.get_object(Bucket=bucket, Key="a/ü b+c.bin", Range="bytes=10-19")
    assert got["Body"].read() == data[10:20]
    assert got["ContentRange"] == "bytes 10-19/100000"
    assert got["Metadata"] == {"who": "me"}
    s3.copy_object(Bucket=bucket, Key="b", CopySource={"Bucket": bucket, "Key": "a/ü b+c.bin"})
    listed = s3.list_objects_v2(Bucket=bucket)["Contents"]
    assert [(item["Key"], item["Size"]) for item in listed] == [
        ("a/ü b+c.bin", 100_000),
        ("b", 100_000),
    ]
    s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "a/ü b+c.bin"}, {"Key": "b"}]})
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    s3.delete_bucket(Bucket=bucket)


def test_multipart_upload_reads_back_in_ranges(objectstore: ObjectStore, bucket: str) -> None:
    s3 = client(objectstore)
    parts = [os.urandom(5 * MIB), os.urandom(5 * MIB), b"end"]
    upload = s3.create_multipart_upload(Bucket=bucket, Key="big")["UploadId"]
    done = []
    for number, part in enumerate(parts, start=1):
        answer = s3.upload_part(
            Bucket=bucket, Key="big", UploadId=upload, PartNumber=number, Body=part
        )
        done.append({"PartNumber": number, "ETag": answer["ETag"]})
    s3.complete_multipart_upload(
        Bucket=bucket, Key="big", UploadId=upload, MultipartUpload={"Parts": done}
    )
    head = s3.head_object(Bucket=bucket, Key="big")
    assert head["ContentLength"] == 10 * MIB + 3
    span = f"bytes={5 * MIB - 2}-{5 * MIB + 1}"
    got = s3.get_object(Bucket=bucket, Key="big", Range=span, IfMatch=head["ETag"])
    assert got["Body"].read() == parts[0][-2:] + parts[1][:2]


def test_pages_of_a_listing(objectstore: ObjectStore, bucket: str) -> None:
    s3 = client(objectstore)
    for number in range(7):
        s3.put_object(Bucket=bucket, Key=f"k/{number}", Body=b"")
    pages = s3.get_paginator("list_objects_v2").paginate(
        Bucket=bucket, PaginationConfig={"PageSize": 3}
    )
    assert [item["Key"] for page in pages for item in page["Contents"]] == [
        f"k/{number}" for number in range(7)
    ]


def test_pyarrow_writes_and_reads(objectstore: ObjectStore, bucket: str) -> None:
    fs = pyarrow.fs.S3FileSystem(
        access_key=objectstore.access_key,
        secret_key=objectstore.secret_key,
        endpoint_override=objectstore.endpoint_url.removeprefix("http://"),
        scheme="http",
        region=objectstore.region,
    )
    data = os.urandom(11 * MIB)
    with fs.open_output_stream(f"{bucket}/x/big") as stream:
        stream.write(data)
    with fs.open_input_file(f"{bucket}/x/big") as file:
        file.seek(6 * MIB)
        assert file.read(100) == data[6 * MIB : 6 * MIB + 100]
    selector = pyarrow.fs.FileSelector(f"{bucket}/x", recursive=True)
    assert [info.path for info in fs.get_file_info(selector)] == [f"{bucket}/x/big"]


def test_errors_are_those_of_s3(objectstore: ObjectStore, bucket: str) -> None:
    with pytest.raises(ClientError) as error:
        client(objectstore, aws_secret_access_key="wrong").list_objects_v2(Bucket=bucket)
    assert code(error) == "SignatureDoesNotMatch"
    with pytest.raises(ClientError) as error:
        client(objectstore).list_objects_v2(Bucket="nobody-made-this")
    assert code(error) == "NoSuchBucket"
    with pytest.raises(ClientError) as error:
        client(objectstore).get_object(Bucket=bucket, Key="none")
    assert code(error) == "NoSuchKey"
    with pytest.raises(ClientError) as error:
        client(
            objectstore,
            aws_access_key_id=objectstore.guest_access_key,
            aws_secret_access_key=objectstore.guest_secret_key,
        ).list_objects_v2(Bucket=bucket)
    assert code(error) == "AccessDenied"


def test_a_store_stops_and_leaves_no_files() -> None:
    store = ObjectStore().start()
    process, folder = store._process, store._temporary
    assert process is not None
    assert folder is not None
    assert (folder / "swift.log").exists()
    store.stop()
    store.stop()
    assert process.returncode is not None
    assert not folder.exists()


def test_a_taken_port_is_told(objectstore: ObjectStore) -> None:
    port = int(objectstore.endpoint_url.rpartition(":")[2])
    with pytest.raises(ObjectStoreError, match="in use"):
        ObjectStore(port=port).start()


def test_a_folder_keeps_its_objects(tmp_path: Path) -> None:
    for attempt in range(2):
        with ObjectStore(folder=tmp_path) as store:
            s3 = client(store)
            if attempt == 0:
                s3.create_bucket(Bucket="kept")
                s3.put_object(Bucket="kept", Key="k", Body=b"v")
            assert s3.get_object(Bucket="kept", Key="k")["Body"].read() == b"v"


def test_a_file_system_without_attributes_will_do() -> None:
    store = ObjectStore()
    store.memory_xattr = True
    with store:
        s3 = client(store)
        s3.create_bucket(Bucket="plain")
        for body in (b"first", b"second"):
            s3.put_object(Bucket="plain", Key="k", Body=body, Metadata={"who": "me"})
            got = s3.get_object(Bucket="plain", Key="k")
            assert (got["Body"].read(), got["Metadata"]) == (body, {"who": "me"})
        s3.delete_object(Bucket="plain", Key="k")
        assert s3.list_objects_v2(Bucket="plain")["KeyCount"] == 0


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return
        if state == "Z":
            return
        time.sleep(0.1)
    raise AssertionError(f"process {pid} is still there")


def test_the_server_ends_when_its_parent_is_killed() -> None:
    program = (
        "import time, infra.objectstore as o; s = o.ObjectStore().start();"
        "print(s._process.pid, s._temporary, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid, folder = parent.stdout.readline().split()
        parent.kill()
    wait_until_gone(int(pid))
    assert not Path(folder).exists()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_the_command_prints_exports_and_stops_cleanly(how: signal.Signals) -> None:
    command = [sys.executable, "-m", "infra.objectstore", "--port", "0"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        lines = [process.stdout.readline() for _ in range(6)]
        process.send_signal(how)
        try:
            assert process.wait(15) == 0
        finally:
            process.kill()
        assert process.stderr.read() == ""
    names = [line.split("=")[0] for line in lines[:5]]
    assert "export AWS_ENDPOINT_URL" in names
    assert "export AWS_SECRET_ACCESS_KEY" in names
    assert lines[5].startswith("# ready")


def test_attributes_in_memory_forget_a_reused_inode(tmp_path: Path) -> None:
    xattr = MemoryXattr(b"user.swift.metadata")
    path = tmp_path / "f"
    path.touch()
    xattr.setxattr(str(path), "user.swift.metadata", b"a")
    xattr.setxattr(str(path), b"user.swift.metadata1", b"b")
    assert xattr.getxattr(str(path), b"user.swift.metadata1") == b"b"
    xattr.setxattr(str(path), "user.swift.metadata", b"c")
    assert xattr.getxattr(str(path), "user.swift.metadata") == b"c"
    with pytest.raises(OSError, match="No data available"):
        xattr.getxattr(str(path), "user.swift.metadata1")
