"""Local files with the same errors and guarantees as objects in S3.

``actors.objects`` is the door for everybody else. Paths are absolute.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat as stat_modes
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from longreel.errors import StorageError

#: Path, size in bytes and etag of a file.
Found = tuple[str, int, str]


def stat(path: str) -> Found:
    """Path, size in bytes and etag, a hash of size and modification time, of a regular file."""
    with translated("stat", path):
        return _found(path, os.stat(path), "stat")


def walk(folder: str, hidden: bool = False) -> Iterator[Found]:
    """Every file below ``folder``, as ``actors.objects.list_objects`` describes.

    Raises:
        StorageError: the folder, or one below it, cannot be listed; files that can be come first.
    """
    with translated("list", folder):
        status = os.stat(folder)
    if not stat_modes.S_ISDIR(status.st_mode):
        raise StorageError("NotAFolder", f"cannot list {folder}: it is not a folder")
    errors: list[StorageError] = []
    yield from _walk(folder, hidden, {(status.st_dev, status.st_ino)}, errors)
    if errors:
        raise errors[0]


def open_for_ranges(path: str) -> int:
    """A descriptor to read from."""
    with translated("open", path):
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def read_range(descriptor: int, path: str, start: int, length: int) -> bytes:
    """Up to ``length`` bytes from ``start``, fewer only at the end of the file."""
    with translated("read", path):
        data = os.pread(descriptor, length, start)
        # One call gives at most 2 GiB, and some network file systems give less than was asked.
        while 0 < len(data) < length:
            more = os.pread(descriptor, length - len(data), start + len(data))
            if not more:
                break
            data += more
    return data


def read(path: str) -> bytes:
    """The whole file."""
    with translated("read", path):
        return Path(path).read_bytes()


def write(path: str, data: bytes) -> None:
    """Creates or replaces a file in one step that survives a power cut."""
    folder = os.path.dirname(path)
    # A short name of its own: the file's name may already be as long as names can be.
    temporary = os.path.join(folder, f".{secrets.token_hex(8)}.part")
    with translated("write", path):
        os.makedirs(folder, exist_ok=True)
        try:
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def delete(path: str) -> None:
    """Removes a file if it is there."""
    with translated("delete", path), suppress(FileNotFoundError):
        os.unlink(path)


def _walk(
    folder: str, hidden: bool, above: set[tuple[int, int]], errors: list[StorageError]
) -> Iterator[Found]:
    """Files below ``folder``; ``above`` holds the folders on the way here, against link loops."""
    try:
        with translated("list", folder), os.scandir(folder) as entries:
            named = [(e.name + ("/" if e.is_dir() else ""), e) for e in entries]
    except StorageError as error:
        errors.append(error)
        return
    # A folder sorts as "name/": then the whole walk is in the order of full paths.
    for name, entry in sorted(named, key=lambda pair: pair[0]):
        if name[0] in "._" and not hidden:
            continue
        try:
            with translated("stat", entry.path):
                status = entry.stat()
        except StorageError:
            yield entry.path, 0, ""
            continue
        if stat_modes.S_ISDIR(status.st_mode):
            identity = (status.st_dev, status.st_ino)
            if identity not in above:
                yield from _walk(entry.path, hidden, above | {identity}, errors)
        elif stat_modes.S_ISREG(status.st_mode):
            yield _found(entry.path, status, "stat")


def _found(path: str, status: os.stat_result, operation: str) -> Found:
    if not stat_modes.S_ISREG(status.st_mode):
        raise StorageError("NotAFile", f"cannot {operation} {path}: it is not a regular file")
    seen = f"{status.st_size} {status.st_mtime_ns}".encode()
    return path, status.st_size, hashlib.blake2b(seen, digest_size=16).hexdigest()


@contextmanager
def translated(operation: str, path: str) -> Iterator[None]:
    """Turns an ``OSError`` into a ``StorageError`` that names the operation and the path."""
    try:
        yield
    except FileNotFoundError:
        raise StorageError("NotFound", f"cannot {operation} {path}: no such file") from None
    except PermissionError:
        raise StorageError("AccessDenied", f"cannot {operation} {path}: not permitted") from None
    except OSError as error:
        kind = {errno.EISDIR: "NotAFile", errno.ENOTDIR: "NotFound"}.get(error.errno or 0)
        kind = kind or errno.errorcode.get(error.errno or 0, "OSError")
        reason = os.strerror(error.errno) if error.errno else type(error).__name__
        raise StorageError(kind, f"cannot {operation} {path}: {reason}") from None
