"""The state store: a folder or ``s3://`` prefix where sessions outlive every process.

``owners/OWNER/log/N`` are batches of records that one replica made durable. ``owners/OWNER/fenced``
says that it may make none any more, and ``owners/OWNER/seals/TERM`` which was the last.
``sessions/ID/manifest-TERM.json`` says who owns a session and from what it can be had again,
``sessions/ID/snapshot-…`` is one such start. Objects are written whole and never changed, but for
manifests, which the directory alone replaces.

TERM is that of the claim (``actors.claim``) under which a directory wrote. The highest counts: what
a directory still writes when another cluster's has taken over changes nothing that this one wrote.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pyarrow as pa

from actors.objects import (
    ObjectStat,
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
#: Of stores from before there were terms, it has none.
_MANIFEST = re.compile(r"manifest(?:-(\d+))?\.json")


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
        term: of the claim on the store under which this was written.
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
    term: int = 0

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
        found = sorted(self._below(self._at("owners", owner)))
        last = self._last([uri for uri in found if _folder(uri) != "log"])
        for uri in found:
            if _folder(uri) == "log" and (last is None or int(_name(uri)) <= last):
                yield from unpack_records(read_bytes(uri))

    def delete_batch(self, owner: str, number: int) -> None:
        """Delete a batch that nobody needs any more."""
        delete_object(self._batch(owner, number))

    def fence(self, owner: str, reason: str, term: int = 0) -> None:
        """Whatever ``owner`` writes from now on does not count.

        First the fence, which its writer looks for after each write; then which batch was the last.
        What was acknowledged was written before the fence, so it is among them.

        Args:
            term: of the directory that fences it.
        """
        if self._below(self._at("owners", owner, "seals")):
            return
        write_bytes(self._fence(owner), json.dumps({"reason": reason}).encode())
        numbers = [int(_name(uri)) for uri in self._below(self._at("owners", owner, "log"))]
        seal = self._at("owners", owner, "seals", f"{term:08d}")
        write_bytes(seal, json.dumps({"last": max(numbers, default=0)}).encode())

    def fenced(self, owner: str) -> bool:
        """Whether it is."""
        return exists(self._fence(owner))

    def delete_owner(self, owner: str) -> None:
        """Delete a fenced owner's log; the fence itself goes last and stays if this is cut off."""
        for uri in self._below(self._at("owners", owner, "log")):
            delete_object(uri)

    # Sessions

    def write_manifest(self, manifest: Manifest) -> None:
        """Create or replace that of its term."""
        uri = self._manifest_uri(manifest.session, manifest.term)
        write_bytes(uri, json.dumps(asdict(manifest)).encode())

    def manifests(self) -> list[Manifest]:
        """Those of all sessions, of each the one of the latest term."""
        uris = (found.uri for _, found in self._latest() if found.size_bytes)
        with ThreadPoolExecutor(_READERS) as readers:
            return [_manifest(data) for data in readers.map(read_bytes, uris)]

    def forget_closed(self, term: int) -> None:
        """Delete what terms before ``term`` left of closed sessions; see ``delete_session``."""
        for written, found in self._latest():
            if written < term and not found.size_bytes:
                self._delete_below(_folder(found.uri), but=found.uri)
                delete_object(found.uri)

    def _latest(self) -> Iterable[tuple[int, ObjectStat]]:
        """Of each session the manifest of the latest term, with that; empty where it is closed."""
        latest: dict[str, tuple[int, ObjectStat]] = {}
        for found in self._found(self._at("sessions")):
            term, session = _term(found.uri), _folder(found.uri)
            if term is not None and (session not in latest or latest[session][0] < term):
                latest[session] = term, found
        return latest.values()

    def write_snapshot(self, session: str, name: str, data: bytes) -> None:
        """Keep ``data`` under ``name``."""
        write_bytes(self._at("sessions", session, name), data)

    def read_snapshot(self, session: str, name: str) -> bytes:
        """What ``write_snapshot`` kept."""
        return read_bytes(self._at("sessions", session, name))

    def delete_snapshot(self, session: str, name: str) -> None:
        """Delete it if it is there."""
        delete_object(self._at("sessions", session, name))

    def delete_session(self, session: str, term: int = 0) -> None:
        """Delete all of a session; the manifest goes first, so that none is left without data.

        Where earlier terms have written one too, an empty one of ``term`` stays: what a directory
        that was taken over still writes cannot bring the session back.
        """
        manifest = self._manifest_uri(session, term)
        written = (_term(uri) for uri in self._below(self._at("sessions", session)))
        older = any(before is not None and before < term for before in written)
        if older:
            write_bytes(manifest, b"")
        else:
            delete_object(manifest)
        self._delete_below(session, but=manifest if older else None)

    def _delete_below(self, session: str, but: str | None) -> None:
        for uri in self._below(self._at("sessions", session)):
            if uri != but:
                delete_object(uri)

    @staticmethod
    def _found(folder: str) -> list[ObjectStat]:
        try:
            return list(list_objects(folder + "/"))
        except StorageError as error:
            if error.kind == "NotFound":
                return []
            raise

    def _below(self, folder: str) -> list[str]:
        return [found.uri for found in self._found(folder)]

    def _at(self, *parts: str) -> str:
        return join_uri(self.uri, *parts)

    def _batch(self, owner: str, number: int) -> str:
        return self._at("owners", owner, "log", f"{number:012d}")

    @staticmethod
    def _last(marks: Sequence[str]) -> int | None:
        """The last batch that counts, by the highest seal of an owner; None where there is none.

        Args:
            marks: what lies beside its log, sorted.
        """
        # Of stores from before there were terms, the only seal is called so.
        seals = [uri for uri in marks if _folder(uri) == "seals" or _name(uri) == "sealed"]
        return int(json.loads(read_bytes(seals[-1]))["last"]) if seals else None

    def _manifest_uri(self, session: str, term: int) -> str:
        name = f"manifest-{term:08d}.json" if term else "manifest.json"
        return self._at("sessions", session, name)

    def _fence(self, owner: str) -> str:
        return self._at("owners", owner, "fenced")


def _name(uri: str) -> str:
    return uri.rpartition("/")[2]


def _folder(uri: str) -> str:
    return _name(uri.rpartition("/")[0])


def _term(uri: str) -> int | None:
    """Of a manifest; None where it is none."""
    named = _MANIFEST.fullmatch(_name(uri))
    return int(named[1] or 0) if named else None


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
