"""The S3 client of this process: its settings, and its errors as ``StorageError``.

``actors.s3objects`` works with it; ``actors.objects`` is the door for everybody else.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import boto3
import urllib3.exceptions
from botocore import exceptions as boto_errors
from botocore.config import Config
from botocore.parsers import ResponseParserError

from longreel.errors import StorageError

CONNECT_TIMEOUT_S = 5
#: A store that says nothing for so long is asked again.
TIMEOUT_S = 15.0
POOL_CONNECTIONS = 32

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
    "500": "InternalError",
    "503": "ServiceUnavailable",
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
_CONNECTION_ERRORS = (
    boto_errors.HTTPClientError,
    boto_errors.ConnectionError,
    # While the body of an error is read, these come as they are.
    urllib3.exceptions.HTTPError,
    OSError,
    ResponseParserError,
)
_TRANSIENT_STATUS = (408, 429, 500, 502, 503, 504)
_TRANSIENT_CODES = (
    "OperationAborted",
    "PriorRequestNotComplete",
    "RequestLimitExceeded",
    "RequestTimeout",
    "RequestTimeoutException",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
)

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


def timeout_s() -> float:
    """Seconds without a word from the store before a request is given up, as set or 15.

    Raises:
        StorageError: ``BadSetting`` when the setting is no such number.
    """
    text = os.environ.get("LONGREEL_S3_TIMEOUT_S", "").strip()
    try:
        seconds = float(text) if text else TIMEOUT_S
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 3600:
        raise StorageError(
            "BadSetting", f"LONGREEL_S3_TIMEOUT_S is {text!r}, not a number from 0.1 to 3600"
        )
    return seconds


def forget_client() -> None:
    """Have the next request look for credentials anew."""
    with _lock:
        _clients.clear()


def _make_client() -> Any:
    endpoint_url = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    found = _client_with(endpoint_url, endpoint_url or "https://s3.amazonaws.com")
    actual = found.meta.endpoint_url
    if endpoint_url is None and not is_aws(actual):
        # The endpoint came from the AWS configuration file, which boto3 alone reads.
        found = _client_with(actual, actual)
    return found


def _client_with(endpoint_url: str | None, for_style: str) -> Any:
    # Lengths are checked where bodies are read, and those may come in pieces.
    options: dict[str, Any] = {"response_checksum_validation": "when_required"}
    if not is_aws(for_style) and "AWS_REQUEST_CHECKSUM_CALCULATION" not in os.environ:
        # Many S3-compatible stores refuse the checksums that boto3 adds unasked.
        options["request_checksum_calculation"] = "when_required"
    config = Config(
        s3={"addressing_style": addressing_style(for_style)},
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=timeout_s(),
        # Attempts are counted in one place, ``actors.s3objects``, and not multiplied by another.
        retries={"mode": "standard", "total_max_attempts": 1},
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


class BodyError(Exception):
    """An answer whose body came short or too slowly; the text says which."""


#: What a request can end with.
ERRORS = (
    boto_errors.ClientError,
    boto_errors.BotoCoreError,
    ValueError,
    BodyError,
    *_CONNECTION_ERRORS,
)


def is_transient(error: Exception) -> bool:
    """Whether the same request may do better a little later."""
    if not isinstance(error, boto_errors.ClientError):
        return isinstance(error, (BodyError, *_CONNECTION_ERRORS))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status in _TRANSIENT_STATUS or error_code(error) in _TRANSIENT_CODES


def error_code(error: boto_errors.ClientError) -> str:
    """What the store calls the error; an HTTP status where an answer had no body."""
    return str(error.response.get("Error", {}).get("Code") or "Unknown")


def storage_error(error: Exception, operation: str, uri: str, attempts: int = 1) -> StorageError:
    """The ``StorageError`` for a boto3 error; its text holds no setting but the endpoint's host."""
    if isinstance(error, boto_errors.ClientError):
        kind, reason = _client_error(error)
    elif isinstance(error, _CREDENTIAL_ERRORS):
        # Not the error's own text: a credential process may have printed anything into it.
        kind = "NoCredentials"
        reason = f"no usable S3 credentials ({type(error).__name__})"
    elif isinstance(error, BodyError):
        kind, reason = "Unreachable", str(error)
    elif isinstance(error, _CONNECTION_ERRORS):
        kind = "Unreachable"
        reason = f"no answer from {_endpoint_name()} ({type(error).__name__})"
    elif isinstance(error, ValueError) and not isinstance(error, boto_errors.BotoCoreError):
        kind, reason = "BadSetting", f"{_endpoint_name()} is not a usable endpoint"
    else:
        kind = type(error).__name__.removesuffix("Error")
        reason = "the object store's client refused the request"
    if attempts > 1:
        reason = f"{reason.removesuffix('.')} (tried {attempts} times)"
    return StorageError(kind, f"cannot {operation} {uri}: {reason}")


def _client_error(error: Any) -> tuple[str, str]:
    response = error.response
    details = response.get("Error", {})
    code = error_code(error)
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
