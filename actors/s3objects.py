"""Objects in S3: each operation tried again through what passes, reads taken up where they broke.

``actors.objects`` is the door for everybody else; errors are those documented there.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, TypeVar

from botocore.exceptions import ClientError

from actors.s3 import (
    ERRORS,
    BodyError,
    client,
    error_code,
    forget_client,
    is_transient,
    split_uri,
    storage_error,
    timeout_s,
)
from longreel.errors import StorageError

#: Attempts in a row that bring nothing, before an operation is given up.
ATTEMPTS = 5
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 8.0
#: A body that comes slower than this over a timeout's length is asked for anew, from there on.
FLOOR_BYTES_PER_S = 16 * 1024

_PIECE_BYTES = 256 * 1024
_Result = TypeVar("_Result")


def head(uri: str) -> tuple[int, str]:
    """Size in bytes and etag (without quotes) of an object.

    Raises:
        StorageError: there is no such object, or it cannot be asked for.
    """
    bucket, key = split_uri(uri)
    if not key:
        raise StorageError("NotFound", f"cannot stat {uri}: it names a bucket, not an object")

    def ask() -> Any:
        try:
            return client().head_object(Bucket=bucket, Key=key)
        except ClientError as error:
            if is_transient(error) or not error_code(error).isdigit():
                raise
            # An answer to HEAD has no body and so no code; a GET says why. boto3 may also follow
            # it into the right region, and then it succeeds.
            answer = client().get_object(Bucket=bucket, Key=key)
            answer["Body"].close()
            return answer

    answer = _tried("stat", uri, ask)
    return int(answer["ContentLength"]), _etag(answer)


def read(uri: str, start: int = 0, length: int | None = None, etag: str | None = None) -> bytes:
    """``length`` bytes from ``start``, or the whole object; only of the version ``etag`` if given.

    What came before a failure is kept, and of the same version only the rest is asked for again;
    where any version will do, one that was replaced in between is read from its beginning.
    """
    bucket, key = split_uri(uri)
    data = bytearray()
    asked, version = length, etag

    def read_rest() -> bytes:
        nonlocal asked, version
        request = {"Bucket": bucket, "Key": key}
        if asked is not None:
            request["Range"] = f"bytes={start + len(data)}-{start + asked - 1}"
        if version:
            request["IfMatch"] = f'"{version}"'
        try:
            answer = client().get_object(**request)
        except ClientError as error:
            if etag or not version or storage_error(error, "read", uri).kind != "Changed":
                raise
            asked, version = length, etag
            data.clear()
            raise BodyError("the object was replaced while it was read") from None
        version = version or _etag(answer)
        promised = int(answer["ContentLength"])
        asked = promised if asked is None else asked
        with closing(answer["Body"]) as body:
            if promised != asked - len(data):
                raise BodyError(f"{promised} bytes were offered instead of {asked - len(data)}")
            for piece in _pieces(body, promised):
                data.extend(piece)
        if len(data) < asked:
            raise BodyError(f"the connection ended after {len(data)} of {asked} bytes")
        return bytes(data)

    return _tried("read", uri, read_rest, lambda: len(data))


def write(uri: str, data: bytes) -> None:
    """Creates or replaces an object."""
    bucket, key = split_uri(uri)
    _tried("write", uri, lambda: client().put_object(Bucket=bucket, Key=key, Body=data))


def delete(uri: str) -> None:
    """Removes an object if it is there."""
    bucket, key = split_uri(uri)
    _tried("delete", uri, lambda: client().delete_object(Bucket=bucket, Key=key))


def keys(uri: str, bucket: str, prefix: str) -> Iterator[tuple[str, int, str]]:
    """(key, size in bytes, etag) of every object whose key starts with ``prefix``, sorted."""
    request = {"Bucket": bucket, "Prefix": prefix}
    while True:
        page = _tried("list", uri, lambda: client().list_objects_v2(**request))
        for item in page.get("Contents", ()):
            yield item["Key"], int(item["Size"]), str(item["ETag"]).strip('"')
        if not page.get("IsTruncated"):
            return
        request["ContinuationToken"] = page["NextContinuationToken"]


def _tried(
    operation: str, uri: str, call: Callable[[], _Result], come: Callable[[], int] = lambda: 0
) -> _Result:
    """What ``call`` returns, called again with growing pauses while it fails for passing reasons.

    Args:
        come: bytes held so far; an attempt that got a fair share further than any before it is
            none in vain.

    Raises:
        StorageError: it failed for good, or ``ATTEMPTS`` times in a row.
    """
    attempt, renewed, furthest = 0, False, 0
    while True:
        attempt += 1
        try:
            return call()
        except ERRORS as error:
            failure = storage_error(error, operation, uri, attempt)
            if failure.kind == "ExpiredToken" and not renewed:
                # Where they come from there may be new credentials by now.
                renewed = True
                forget_client()
                continue
            if come() - furthest >= FLOOR_BYTES_PER_S * timeout_s():
                attempt = 1
            furthest = max(furthest, come())
            if attempt == ATTEMPTS or not is_transient(error):
                raise failure from None
        longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (attempt - 1))
        time.sleep(random.uniform(longest / 2, longest))


def _pieces(body: Any, length: int) -> Iterator[bytes]:
    """The bytes of a body as they come, at most ``length``.

    Raises:
        BodyError: they come too slowly.
    """
    # The wrapped stream, because the wrapper waits for all that is asked for, however it drips.
    stream = body._raw_stream
    window_s = timeout_s()
    since, come = time.monotonic(), 0
    while length > 0 and (piece := stream.read1(min(length, _PIECE_BYTES))):
        yield piece
        length -= len(piece)
        come += len(piece)
        passed_s = time.monotonic() - since
        if length and passed_s >= window_s:
            if come < FLOOR_BYTES_PER_S * passed_s:
                raise BodyError(f"only {come} bytes came in {passed_s:.0f} s")
            since, come = time.monotonic(), 0


def _etag(answer: dict[str, Any]) -> str:
    return str(answer.get("ETag") or "").strip('"')
