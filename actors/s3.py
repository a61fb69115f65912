"""The S3 client of this process: settings, errors as ``StorageError``, reads that survive resets.

``actors.objects`` is the door for everybody else.
"""

from __future__ import annotations

import os
import random
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import boto3
import urllib3.exceptions
from botocore import exceptions as boto_errors
from botocore.config import Config

from longreel.errors import StorageError

ATTEMPTS = 5
CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 60
POOL_CONNECTIONS = 32
LONGEST_PAUSE_S = 8.0

_SETTINGS = re.compile(r"(AWS_|LONGREEL_S3_|https?_proxy$|no_proxy$)", re.IGNORECASE)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_KINDS = {
    "NoSuchKey": "NotFound",
    "NoSuchVersion": "NotFound",
    "NotFound": "NotFound",
    "404": "NotFound",
    "403": "AccessDenied",
    "Forbidden": "AccessDenied",
    "AllAccessDisabled": "AccessDenied",
    "412": "Changed",
    "PreconditionFailed": "Changed",
    "416": "Changed",
    "InvalidRange": "Changed",
    "301": "WrongRegion",
    "PermanentRedirect": "WrongRegion",
    "AuthorizationHeaderMalformed": "WrongRegion",
    "IllegalLocationConstraintException": "WrongRegion",
}
_REASONS = {
    "NotFound": "no such object",
    "NoSuchBucket": "no such bucket",
    "AccessDenied": "the credentials do not allow it",
    "Changed": "the object was replaced since it was first seen",
    "SignatureDoesNotMatch": "the secret key does not match the access key",
    "InvalidAccessKeyId": "the access key is not known there",
    "ExpiredToken": "the session token has expired",
}
_CREDENTIAL_ERRORS = (
    boto_errors.NoCredentialsError,
    boto_errors.PartialCredentialsError,
    boto_errors.CredentialRetrievalError,
    boto_errors.UnknownCredentialError,
    boto_errors.ProfileNotFound,
    boto_errors.SSOError,
)
_BODY_ERRORS = (boto_errors.BotoCoreError, urllib3.exceptions.HTTPError, OSError)

_lock = threading.Lock()
_clients: dict[tuple[tuple[str, str], ...], Any] = {}


def _forget_clients() -> None:
    # A forked child must not share sockets with its parent, nor a lock that a thread held.
    global _lock
    _lock = threading.Lock()
    _clients.clear()


os.register_at_fork(after_in_child=_forget_clients)


def split_uri(uri: str) -> tuple[str, str]:
    """``s3://bucket/key`` -> (bucket, key); the key is taken literally and may be empty.

    Raises:
        StorageError: ``UnsupportedUri`` when there is no usable bucket name.
    """
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not _BUCKET.fullmatch(bucket):
        # The name is not repeated: some people put credentials there.
        raise StorageError("UnsupportedUri", "an s3:// address has no valid bucket name")
    return bucket, key


def client() -> Any:
    """The boto3 client of this process, made anew when a setting in the environment changed.

    Raises:
        StorageError: ``NoCredentials`` for a profile that does not exist, ``BadSetting`` for a
            value that cannot be used.
    """
    # Keyed by the environment, so that a long-lived worker follows rotated keys.
    settings = tuple(sorted((k, v) for k, v in os.environ.items() if _SETTINGS.match(k)))
    with _lock:
        if settings not in _clients:
            _clients.clear()
            with translated("connect to", "the object store"):
                _clients[settings] = _make_client()
        return _clients[settings]


def session() -> Any:
    """A boto3 session with the usual credential chain."""
    return boto3.session.Session()


def region() -> str:
    """AWS_REGION, else what boto3 finds, else ``us-east-1``."""
    return os.environ.get("AWS_REGION") or session().region_name or "us-east-1"


def is_aws(endpoint_url: str) -> bool:
    """Whether the endpoint is Amazon's own."""
    host = urlsplit(endpoint_url).hostname or ""
    return host.endswith((".amazonaws.com", ".amazonaws.com.cn"))


def addressing_style(endpoint_url: str) -> str:
    """``path``, ``virtual`` or ``auto``: as set, else ``path`` away from Amazon.

    Raises:
        StorageError: ``BadSetting`` for any other value.
    """
    style = os.environ.get("LONGREEL_S3_ADDRESSING_STYLE", "").strip().lower()
    if style not in ("", "path", "virtual", "auto"):
        raise StorageError(
            "BadSetting", f"LONGREEL_S3_ADDRESSING_STYLE is {style!r}, not path, virtual or auto"
        )
    return style or ("auto" if is_aws(endpoint_url) else "path")


def _make_client() -> Any:
    endpoint_url = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    found = _client_with(endpoint_url, endpoint_url or "https://s3.amazonaws.com")
    actual = found.meta.endpoint_url
    if endpoint_url is None and not is_aws(actual):
        # The endpoint came from the AWS configuration file, which boto3 alone reads.
        found = _client_with(actual, actual)
    return found


def _client_with(endpoint_url: str | None, for_style: str) -> Any:
    options: dict[str, Any] = {}
    retries: dict[str, Any] = {}
    if "AWS_RETRY_MODE" not in os.environ:
        retries["mode"] = "standard"
    if "AWS_MAX_ATTEMPTS" not in os.environ:
        retries["total_max_attempts"] = ATTEMPTS
    if retries:
        options["retries"] = retries
    if not is_aws(for_style):
        # Many S3-compatible stores refuse the checksums that boto3 adds unasked.
        if "AWS_REQUEST_CHECKSUM_CALCULATION" not in os.environ:
            options["request_checksum_calculation"] = "when_required"
        if "AWS_RESPONSE_CHECKSUM_VALIDATION" not in os.environ:
            options["response_checksum_validation"] = "when_required"
    config = Config(
        s3={"addressing_style": addressing_style(for_style)},
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        max_pool_connections=POOL_CONNECTIONS,
        tcp_keepalive=True,
        **options,
    )
    return session().client("s3", region_name=region(), endpoint_url=endpoint_url, config=config)


@contextmanager
def translated(operation: str, uri: str) -> Iterator[None]:
    """Turns every boto3 error into a ``StorageError`` that names the operation and the object."""
    try:
        yield
    except (boto_errors.ClientError, boto_errors.BotoCoreError, ValueError) as error:
        raise storage_error(error, operation, uri) from None


def storage_error(error: Exception, operation: str, uri: str) -> StorageError:
    """The ``StorageError`` for a boto3 error; its text holds no setting but the endpoint's host."""
    if isinstance(error, boto_errors.ClientError):
        kind, reason = _client_error(error)
    elif isinstance(error, _CREDENTIAL_ERRORS):
        # Not the error's own text: a credential process may have printed anything into it.
        kind = "NoCredentials"
        reason = f"no usable S3 credentials ({type(error).__name__})"
    elif isinstance(error, (boto_errors.HTTPClientError, boto_errors.ConnectionError)):
        kind = "Unreachable"
        reason = f"no answer from {_endpoint_name()} ({type(error).__name__})"
    elif isinstance(error, ValueError) and not isinstance(error, boto_errors.BotoCoreError):
        kind, reason = "BadSetting", f"{_endpoint_name()} is not a usable endpoint"
    else:
        kind = type(error).__name__.removesuffix("Error")
        reason = "the object store's client refused the request"
    return StorageError(kind, f"cannot {operation} {uri}: {reason}")


def _client_error(error: Any) -> tuple[str, str]:
    response = error.response
    details = response.get("Error", {})
    code = str(details.get("Code") or "Unknown")
    kind = _KINDS.get(code, code)
    if kind == "WrongRegion":
        headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        right = details.get("Region") or headers.get("x-amz-bucket-region")
        return kind, f"asked in region {region()}" + (f", it is in {right}" if right else "")
    reason = _REASONS.get(kind) or " ".join(
        str(details.get("Message") or "no reason given").split()
    )
    return kind, reason


def _endpoint_name() -> str:
    """Scheme, host and port of the endpoint; never its user name or password."""
    url = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if not url:
        return f"Amazon S3 in {os.environ.get('AWS_REGION') or 'its region'}"
    return f"{url.partition('://')[0]}://{url.partition('://')[2].split('/')[0].rpartition('@')[2]}"


def head(uri: str) -> tuple[int, str]:
    """Size in bytes and etag (without quotes) of an object.

    Raises:
        StorageError: as documented in ``actors.objects``.
    """
    bucket, key = split_uri(uri)
    if not key:
        raise StorageError("NotFound", f"cannot stat {uri}: it names a bucket, not an object")
    with translated("stat", uri):
        try:
            answer = client().head_object(Bucket=bucket, Key=key)
        except boto_errors.ClientError as error:
            if not str(error.response.get("Error", {}).get("Code", "")).isdigit():
                raise
            # An answer to HEAD has no body and so no code; a GET says why. boto3 may also follow
            # it into the right region, and then it succeeds.
            answer = client().get_object(Bucket=bucket, Key=key)
            answer["Body"].close()
    return int(answer["ContentLength"]), str(answer["ETag"]).strip('"')


def read(uri: str, start: int = 0, length: int | None = None, etag: str | None = None) -> bytes:
    """``length`` bytes from ``start``, or the whole object; only of the version ``etag`` if given.

    The client repeats failed requests; a connection that breaks amid the body is repeated here.
    """
    bucket, key = split_uri(uri)
    request: dict[str, Any] = {"Bucket": bucket, "Key": key}
    if length is not None:
        request["Range"] = f"bytes={start}-{start + length - 1}"
    if etag:
        request["IfMatch"] = f'"{etag}"'
    attempt = 0
    while True:
        attempt += 1
        with translated("read", uri):
            body = client().get_object(**request)["Body"]
        try:
            data: bytes = body.read()
            if length is None or len(data) == length:
                return data
            problem = f"{len(data)} bytes came instead of {length}"
        except _BODY_ERRORS as error:
            problem = f"the connection broke ({type(error).__name__})"
        finally:
            body.close()
        if attempt == ATTEMPTS:
            raise StorageError("Unreachable", f"cannot read {uri}: {problem}, {attempt} times")
        time.sleep(random.uniform(0, min(LONGEST_PAUSE_S, 0.25 * 2**attempt)))


def keys(uri: str, bucket: str, prefix: str) -> Iterator[tuple[str, int, str]]:
    """(key, size in bytes, etag) of every object whose key starts with ``prefix``, sorted."""
    token: dict[str, str] = {}
    while True:
        with translated("list", uri):
            page = client().list_objects_v2(Bucket=bucket, Prefix=prefix, **token)
        for item in page.get("Contents", ()):
            yield item["Key"], int(item["Size"]), str(item["ETag"]).strip('"')
        if not page.get("IsTruncated"):
            return
        token = {"ContinuationToken": page["NextContinuationToken"]}
