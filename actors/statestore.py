"""The state store: a folder or ``s3://`` prefix where sessions outlive every process.

``owners/OWNER/log/N`` are batches of records that one replica made durable. ``owners/OWNER/fenced``
says that it may make none any more, and ``owners/OWNER/sealed`` which was the last.
``sessions/ID/manifest.json`` says who owns a session and from what it can be had again,
``sessions/ID/snapshot-…`` is one such start. Objects are written whole and never changed, but for
manifests, which the directory alone replaces.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pyarrow as pa

from actors.objects import (
    delete_object,
    exists,
    join_uri,
    list_objects,
    normalize_uri,
    read_bytes,
    write_bytes,
)
from longreel.errors import StorageError

#: Of logs: a third of zlib's time, and smaller.
_CODEC = "zstd"
#: Threads that read manifests: a store far away answers each in tens of milliseconds.
_READERS = 16


@dataclass(frozen=True)
class Record:
    """One durable line of a session's log.

    Attributes:
        epoch: assignment under which it was written.
        seq: sequence number of the input that it is, or of the last one before it.
        kind: what ``data`` and ``blob`` mean to the session.
        about: what a remark is about, such as the turn that it ends; empty for an input.
    """

    session: str
    epoch: int
    seq: int
    kind: str
    data: dict[str, Any] = field(default_factory=dict)
    blob: bytes = b""
    about: str = ""


@dataclass(frozen=True)
class Manifest:
    """What is known of a session wherever it lives.

    Attributes:
        created: seconds since 1970.
        options: as ``serve.live`` spells them.
        epoch: number of its assignment; grows with each.
        owner, replica: who has it, and where that runs; None while it is in the store alone.
        snapshot: name of the snapshot to start from; None starts from nothing.
        tail: owners in whose logs records lie that the snapshot does not hold, the oldest first.
        counts: of its inputs and events when the snapshot was taken.
    """

    session: str
    created: float
    options: dict[str, Any]
    epoch: int = 0
    owner: str | None = None
    replica: str | None = None
    snapshot: str | None = None
    tail: tuple[str, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)

    def assigned(self, owner: str, replica: str) -> Manifest:
        """The next assignment."""
        tail = (*(name for name in self.tail if name != owner), owner)
        return replace(self, epoch=self.epoch + 1, owner=owner, replica=replica, tail=tail)


class StateStore:
    """Reads and writes one state store; every write is durable when it returns.

    Args:
        uri: a folder or ``s3://bucket/prefix``.
    """

    def __init__(self, uri: str) -> None:
        self.uri = normalize_uri(uri)

    # Logs

    def append(self, owner: str, number: int, records: Sequence[Record]) -> None:
        """Write batch ``number`` of an owner's log."""
        write_bytes(self._batch(owner, number), pack_records(records))

    def records(self, owner: str) -> Iterator[Record]:
        """All records in an owner's log that count, in the order in which they were written."""
        log = self._at("owners", owner, "log")
        last = self._last(owner)
        for key in sorted(self._below(log)):
            if last is None or int(key.rpartition("/")[2]) <= last:
                yield from unpack_records(read_bytes(key))

    def delete_batch(self, owner: str, number: int) -> None:
        """Delete a batch that nobody needs any more."""
        delete_object(self._batch(owner, number))

    def fence(self, owner: str, reason: str) -> None:
        """Whatever ``owner`` writes from now on does not count.

        First the fence, which its writer looks for after each write; then which batch was the last.
        What was acknowledged was written before the fence, so it is among them.
        """
        if self._last(owner) is not None:
            return
        write_bytes(self._fence(owner), json.dumps({"reason": reason}).encode())
        numbers = [int(u.rpartition("/")[2]) for u in self._below(self._at("owners", owner, "log"))]
        write_bytes(self._seal(owner), json.dumps({"last": max(numbers, default=0)}).encode())

    def fenced(self, owner: str) -> bool:
        """Whether it is."""
        return exists(self._fence(owner))

    def delete_owner(self, owner: str) -> None:
        """Delete a fenced owner's log; the fence itself goes last and stays if this is cut off."""
        for uri in self._below(self._at("owners", owner, "log")):
            delete_object(uri)

    # Sessions

    def write_manifest(self, manifest: Manifest) -> None:
        """Create or replace it."""
        uri = self._at("sessions", manifest.session, "manifest.json")
        write_bytes(uri, json.dumps(asdict(manifest)).encode())

    def manifests(self) -> list[Manifest]:
        """Those of all sessions."""
        uris = [u for u in self._below(self._at("sessions")) if u.endswith("/manifest.json")]
        with ThreadPoolExecutor(_READERS) as readers:
            return [_manifest(data) for data in readers.map(read_bytes, uris)]

    def write_snapshot(self, session: str, name: str, data: bytes) -> None:
        """Keep ``data`` under ``name``."""
        write_bytes(self._at("sessions", session, name), data)

    def read_snapshot(self, session: str, name: str) -> bytes:
        """What ``write_snapshot`` kept."""
        return read_bytes(self._at("sessions", session, name))

    def delete_snapshot(self, session: str, name: str) -> None:
        """Delete it if it is there."""
        delete_object(self._at("sessions", session, name))

    def delete_session(self, session: str) -> None:
        """Delete all of a session; the manifest goes first, so that none is left without data."""
        delete_object(self._at("sessions", session, "manifest.json"))
        for uri in self._below(self._at("sessions", session)):
            delete_object(uri)

    @staticmethod
    def _below(folder: str) -> list[str]:
        try:
            return [found.uri for found in list_objects(folder + "/")]
        except StorageError as error:
            if error.kind == "NotFound":
                return []
            raise

    def _at(self, *parts: str) -> str:
        return join_uri(self.uri, *parts)

    def _batch(self, owner: str, number: int) -> str:
        return self._at("owners", owner, "log", f"{number:012d}")

    def _last(self, owner: str) -> int | None:
        """The last batch of a fenced owner that counts."""
        try:
            found = json.loads(read_bytes(self._seal(owner)))
        except StorageError as error:
            if error.kind == "NotFound":
                return None
            raise
        return int(found["last"])

    def _seal(self, owner: str) -> str:
        return self._at("owners", owner, "sealed")

    def _fence(self, owner: str) -> str:
        return self._at("owners", owner, "fenced")


def _manifest(data: bytes) -> Manifest:
    fields = json.loads(data)
    return Manifest(**{**fields, "tail": tuple(fields["tail"])})


def pack_records(records: Sequence[Record]) -> bytes:
    """Records as bytes: a table of them in JSON, then their blobs; compressed."""
    table = [[r.session, r.epoch, r.seq, r.kind, r.data, r.about, len(r.blob)] for r in records]
    head = json.dumps(table).encode()
    body = b"".join([len(head).to_bytes(4, "little"), head, *(r.blob for r in records)])
    return len(body).to_bytes(8, "little") + pa.compress(body, _CODEC, asbytes=True)


def unpack_records(data: bytes) -> Iterator[Record]:
    """What ``pack_records`` packed."""
    size = int.from_bytes(data[:8], "little")
    body = memoryview(pa.decompress(data[8:], size, _CODEC, asbytes=True))
    start = 4 + int.from_bytes(body[:4], "little")
    for session, epoch, seq, kind, fields, about, size in json.loads(bytes(body[4:start])):
        blob = bytes(body[start : start + size])
        yield Record(session, epoch, seq, kind, fields, blob, about)
        start += size


def effective(records: Sequence[Record]) -> list[Record]:
    """A session's records as they count, in order, from the logs of all its owners.

    Where a later assignment wrote from some sequence number on, what earlier ones wrote from there
    was never acknowledged. Of two with one number in one assignment the later counts: the first
    attempt had failed as far as its writer could tell.

    Args:
        records: of one session, each owner's in the order in which they were written.
    """
    first: dict[int, int] = {}
    for record in records:
        if not record.about:
            first[record.epoch] = min(first.get(record.epoch, record.seq), record.seq)
    counted: dict[tuple[int, str], Record] = {}
    for record in sorted(records, key=lambda r: r.epoch):
        later = [seq for epoch, seq in first.items() if epoch > record.epoch]
        if record.seq < min(later, default=record.seq + 1):
            counted[record.seq, record.about] = record
    return sorted(counted.values(), key=lambda r: (r.seq, r.about))
