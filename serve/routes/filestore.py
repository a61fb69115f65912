"""Uploaded files in the state store: the bytes of each, and beside them what is known of it."""

from __future__ import annotations

import json
import re
import time
import uuid
from dataclasses import asdict, dataclass

from actors.objects import (
    delete_object,
    join_uri,
    list_objects,
    read_bytes,
    read_many,
    write_bytes,
)
from longreel.errors import StorageError
from serve.keys.serving import owner, sees
from serve.live.items import SessionError

_ID = re.compile(r"file-[0-9a-f]{32}")
_ABOUT = re.compile(rf"{_ID.pattern}\.json")


@dataclass(frozen=True)
class StoredFile:
    """An uploaded file.

    Attributes:
        bytes: how many it has.
        created_at: seconds since 1970.
        filename: as its sender called it; no path.
        purpose: what its sender wants it for.
        owner: id of the API key that it belongs to; None where keys are off.
    """

    id: str
    bytes: int
    created_at: int
    filename: str
    purpose: str
    owner: str | None = None


def is_file_id(text: str) -> bool:
    """Whether this could be a file's id."""
    return _ID.fullmatch(text) is not None


def content_uri(store: str, file: str) -> str:
    """Where the bytes of a file lie."""
    return join_uri(store, "files", file)


def save_file(store: str, data: bytes, filename: str, purpose: str) -> StoredFile:
    """Keeps ``data`` for whoever is served. Raises ``StorageError``."""
    name, now = f"file-{uuid.uuid4().hex}", int(time.time())
    saved = StoredFile(name, len(data), now, filename, purpose, owner())
    write_bytes(content_uri(store, saved.id), data)
    # Last, so that a file is known only when all of it is there.
    write_bytes(_about_uri(store, saved.id), json.dumps(asdict(saved)).encode())
    return saved


def find_file(store: str, file: str) -> StoredFile:
    """What is known of a file.

    Raises:
        SessionError: ``file_not_found``; also where it is another key's.
        StorageError: the store cannot be read.
    """
    if is_file_id(file):
        try:
            found = StoredFile(**json.loads(read_bytes(_about_uri(store, file))))
            if sees(found.owner):
                return found
        except StorageError as error:
            if error.kind != "NotFound":
                raise
    raise SessionError("file_not_found", f"there is no file {file[:80]!r}")


def stored_files(store: str) -> list[StoredFile]:
    """All files of whoever is served, oldest first. Raises ``StorageError``."""
    try:
        there = [found.uri for found in list_objects(join_uri(store, "files"))]
    except StorageError as error:
        if error.kind != "NotFound":
            raise
        return []
    known = read_many(uri for uri in there if _ABOUT.fullmatch(uri.rpartition("/")[2]))
    files = [StoredFile(**json.loads(data)) for data in known if data]
    return sorted(
        (file for file in files if sees(file.owner)), key=lambda file: (file.created_at, file.id)
    )


def remove_file(store: str, file: str) -> None:
    """Forgets a file.

    Raises:
        SessionError: ``file_not_found``.
        StorageError: the store cannot be written.
    """
    find_file(store, file)
    delete_object(_about_uri(store, file))
    delete_object(content_uri(store, file))


def _about_uri(store: str, file: str) -> str:
    return join_uri(store, "files", f"{file}.json")
