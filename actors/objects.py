"""Objects by uri: local paths, ``file://`` and ``s3://bucket/key`` behind one set of functions.

S3 goes through boto3 with its usual credential chain and variables. ``AWS_ENDPOINT_URL_S3`` and
``AWS_ENDPOINT_URL`` name another store, ``AWS_REGION`` or ``AWS_DEFAULT_REGION`` the region
(``us-east-1`` without), ``LONGREEL_S3_ADDRESSING_STYLE`` is ``path``, ``virtual`` or ``auto``,
``LONGREEL_S3_TIMEOUT_S`` the seconds (15 without) after which a silent or very slow request is
made again. What fails for passing reasons is tried five times, with growing pauses.

Every failure is a ``StorageError`` whose kind is one of ``NotFound``, ``NoSuchBucket``,
``AccessDenied``, ``Changed``, ``Unreachable``, ``NoCredentials``, ``WrongRegion``,
``UnsupportedUri``, ``BadSetting``, ``NotAFile``, ``NotAFolder``, else the S3 error code or the
system's error name; its one line names the operation and the object, and never a secret.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow.fs

from actors import local, s3, s3objects
from actors.granules import Granules
from actors.keepout import KEEP_OUT, lies_in
from actors.ranged import RangedReader
from longreel.errors import StorageError

__all__ = [
    "ObjectStat",
    "RangedReader",
    "arrow_filesystem",
    "delete_object",
    "exists",
    "is_s3",
    "join_uri",
    "list_objects",
    "located",
    "normalize_uri",
    "open_object",
    "printable_uri",
    "read_bytes",
    "read_many",
    "stat_object",
    "write_bytes",
]

#: Of many small objects at once: a store far away answers each in tens of milliseconds.
_READERS = 16
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


@dataclass(frozen=True)
class ObjectStat:
    """One object: its normalized uri, its size in bytes, and a tag that changes with its content.

    A local file's tag is a hash of its size and modification time, so no byte is read.
    """

    uri: str
    size_bytes: int
    etag: str


def is_s3(uri: str) -> bool:
    """Whether a uri names something in S3 rather than a local path."""
    return uri.startswith("s3://")


def normalize_uri(text: str) -> str:
    """``s3://...`` as it is; a path or ``file://`` address as an absolute, resolved path.

    Raises:
        StorageError: ``UnsupportedUri`` for any other scheme, another host or a bad bucket name.
    """
    text = os.fspath(text)
    try:
        text.encode()
    except UnicodeEncodeError:
        shown = printable_uri(text.encode(errors="backslashreplace").decode())
        raise StorageError("UnsupportedUri", f"the name of {shown} is not UTF-8") from None
    scheme = _SCHEME.match(text)
    if scheme is None:
        if not text or "\0" in text:
            raise StorageError("UnsupportedUri", "an empty or impossible path")
        return str(Path(text).resolve())
    if scheme[1] == "s3":
        s3.split_uri(text)
        return text
    if scheme[1].lower() == "file":
        host, slash, path = text[len(scheme[0]) :].partition("/")
        if host in ("", "localhost"):
            return normalize_uri(unquote(slash + path))
    raise StorageError(
        "UnsupportedUri",
        f"{printable_uri(text)} is neither a local path nor an s3://bucket/key address",
    )


def located(uri: str) -> str:
    """``uri`` as it reads from any working folder: a local path becomes absolute.

    Raises:
        StorageError: ``UnsupportedUri``.
    """
    found = normalize_uri(uri)
    return found if "://" in uri else os.path.abspath(uri)


def printable_uri(text: str) -> str:
    """A uri fit for messages and rows: without user name, password and query of a web address."""
    if _SCHEME.match(text) is None or (text.startswith("s3://") and "@" not in text.split("/")[2]):
        return text
    try:
        parts = urlsplit(text)
    except ValueError:  # such as a bracket that is never closed
        return f"{text.partition(':')[0]}://..."
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def join_uri(base: str, *parts: str) -> str:
    """``base`` with relative parts added, ``.`` and ``..`` resolved; ``base`` is a folder.

    Raises:
        StorageError: ``UnsupportedUri`` when ``..`` leads out of the bucket.
    """
    if not is_s3(base):
        return os.path.normpath(os.path.join(base, *parts))
    bucket, key = s3.split_uri(base)
    joined = posixpath.normpath("/".join([key.rstrip("/"), *parts]).lstrip("/"))
    if joined == ".." or joined.startswith("../"):
        raise StorageError(
            "UnsupportedUri", f"{base} with {'/'.join(parts)} leads out of its bucket"
        )
    return f"s3://{bucket}/{joined}" if joined != "." else f"s3://{bucket}"


def _reached(text: str) -> str:
    """``normalize_uri`` of what is about to be read or written: links have led where they lead.

    Raises:
        StorageError: ``AccessDenied`` where this process is kept out.
    """
    uri, place = normalize_uri(text), os.environ.get(KEEP_OUT)
    if place and lies_in(uri, normalize_uri(place)):
        raise StorageError(
            "AccessDenied", f"{text} is not for jobs: the service keeps its own state there"
        )
    return uri


def stat_object(uri: str) -> ObjectStat:
    """Size and etag of one object. Raises ``StorageError``; ``NotAFile`` for a folder."""
    uri = _reached(uri)
    if is_s3(uri):
        return ObjectStat(uri, *s3objects.head(uri))
    return ObjectStat(*local.stat(uri))


def exists(uri: str) -> bool:
    """Whether there is such an object (not a folder). Raises ``StorageError`` if unknowable."""
    try:
        stat_object(uri)
    except StorageError as error:
        if error.kind in ("NotFound", "NotAFile"):
            return False
        raise
    return True


def list_objects(
    prefix_uri: str, *, whole_names: bool = True, hidden: bool = False
) -> Iterator[ObjectStat]:
    """Every object below a folder, recursively, in the order of their uris.

    Names that start with ``.`` or ``_`` are left out, at any depth below the prefix, unless
    ``hidden``. In S3 the prefix is a folder too, ``videos`` does not match ``videos2/a.mp4``,
    unless ``whole_names`` is false: then it is S3's own prefix. A dangling local link comes with
    size 0 and an empty etag.
    What cannot be listed does not hide the rest: the first error is raised after everything else.
    """
    uri = _reached(prefix_uri)
    if not is_s3(uri):
        yield from (ObjectStat(*found) for found in local.walk(uri, hidden))
        return
    bucket, key = s3.split_uri(uri)
    folder = f"{key.rstrip('/')}/" if key and whole_names else key
    for found, size_bytes, etag in s3objects.keys(uri, bucket, folder):
        # Below a folder: for S3's own prefix, the folder that the prefix begins in.
        below = found[folder.rfind("/") + 1 :]
        shown = hidden or not any(name[:1] in (".", "_") for name in below.split("/"))
        if shown and not found.endswith("/"):
            yield ObjectStat(f"s3://{bucket}/{found}", size_bytes, etag)


def open_object(
    uri: str,
    etag: str | None = None,
    buffer_bytes: int = 4 * 1024 * 1024,
    granules: Granules | None = None,
) -> RangedReader:
    """A seekable read-only file over one object, for instance for ``av.open``.

    The reader is bound to the version it was opened on: when the object is replaced meanwhile,
    a read of S3 raises ``StorageError`` kind ``Changed``, as does opening with another ``etag``.

    Args:
        granules: where readers that share it keep what came from S3, so that it comes once.
    """
    found = stat_object(uri)
    uri = found.uri
    if etag and etag != found.etag:
        raise StorageError("Changed", f"cannot open {uri}: it was replaced since it was first seen")
    if is_s3(uri):

        def fetch(start: int, length: int) -> bytes:
            return s3objects.read(uri, start, length, found.etag)

        return RangedReader(
            found.size_bytes,
            fetch,
            name=uri,
            buffer_bytes=buffer_bytes,
            # Without an etag nobody can tell one version from the next.
            granules=granules if found.etag else None,
            version=(uri, found.etag),
        )
    descriptor = local.open_for_ranges(uri)

    def fetch_local(start: int, length: int) -> bytes:
        return local.read_range(descriptor, uri, start, length)

    return RangedReader(
        found.size_bytes,
        fetch_local,
        name=uri,
        buffer_bytes=0,
        on_close=lambda: os.close(descriptor),
    )


def read_bytes(uri: str) -> bytes:
    """The whole object. Raises ``StorageError``."""
    uri = _reached(uri)
    return s3objects.read(uri) if is_s3(uri) else local.read(uri)


def read_many(uris: Iterable[str]) -> Iterator[bytes | None]:
    """Whole objects in the order of their uris, read side by side; None where none is there.

    Raises ``StorageError`` where it cannot be known.
    """

    def read(uri: str) -> bytes | None:
        try:
            return read_bytes(uri)
        except StorageError as error:
            if error.kind != "NotFound":
                raise
            return None

    with ThreadPoolExecutor(_READERS) as readers:
        yield from readers.map(read, uris)


def write_bytes(uri: str, data: bytes) -> None:
    """Creates or replaces one object; readers see the old bytes or the new ones, never a part.

    Missing local folders are made. Raises ``StorageError``.
    """
    uri = _reached(uri)
    if is_s3(uri):
        s3objects.write(uri, data)
    else:
        local.write(uri, data)


def delete_object(uri: str) -> None:
    """Removes one object; none there is no error, as in S3. Raises ``StorageError``."""
    uri = _reached(uri)
    if is_s3(uri):
        s3objects.delete(uri)
    else:
        local.delete(uri)


def arrow_filesystem(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """A pyarrow filesystem and the path in it, by the same settings and credentials as above.

    Credentials are those of this moment: make a new one per job stage, as short-lived keys expire.

    Raises:
        StorageError: there are no credentials.
    """
    uri = _reached(uri)
    if not is_s3(uri):
        return pyarrow.fs.LocalFileSystem(), uri
    bucket, key = s3.split_uri(uri)
    with s3.translated("connect to", f"s3://{bucket}"):
        credentials = s3.session().get_credentials()
        frozen = credentials.get_frozen_credentials() if credentials is not None else None
    if frozen is None:
        raise StorageError("NoCredentials", f"cannot connect to s3://{bucket}: none were found")
    options: dict[str, Any] = {}
    endpoint_url = s3.client().meta.endpoint_url
    if not s3.is_aws(endpoint_url):
        parts = urlsplit(endpoint_url)
        options["scheme"] = parts.scheme
        options["endpoint_override"] = parts.netloc.rpartition("@")[2] + parts.path.rstrip("/")
        options["force_virtual_addressing"] = s3.addressing_style(endpoint_url) == "virtual"
    filesystem = pyarrow.fs.S3FileSystem(
        access_key=frozen.access_key,
        secret_key=frozen.secret_key,
        session_token=frozen.token,
        region=s3.region(),
        connect_timeout=s3.CONNECT_TIMEOUT_S,
        request_timeout=s3.timeout_s(),
        **options,
    )
    return filesystem, f"{bucket}/{key}".rstrip("/")
