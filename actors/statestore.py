"""The state store: a folder or ``s3://`` prefix where sessions outlive every process.

``owners/OWNER/log/N`` are batches of records that one replica made durable. ``owners/OWNER/fenced``
says that it may make none any more, and ``owners/OWNER/seals/TERM`` which was the last.
``sessions/ID/manifest-TERM.json`` says who owns a session and from what it can be had again,
``sessions/ID/snapshot-…`` is one such start. Objects are written whole and never changed, but for
manifests, which the directory alone replaces. An empty one says that the session is closed.

TERM is that of the claim (``actors.claim``) under which a directory wrote. The highest counts: what
a directory still writes when another cluster's has taken over changes nothing that this one wrote.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
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
    read_many,
    write_bytes,
)
from longreel.errors import StorageError

#: What an id of a session, and so of a stream, looks like: it stands in paths and files.
SESSION_ID = r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"
#: Of logs: a third of zlib's time, and smaller.
_CODEC = "zstd"
#: Of stores from before there were terms, it has none.
_MANIFEST = re.compile(r"manifest(?:-(\d+))?\.json")


@dataclass(frozen=True)
class Record:
    """One durable line of a session's log.

    Attributes:
        life: of the session, see ``Manifest.life``.
        epoch: assignment under which it was written.
        seq: sequence number of the input that it is, or of the last one before it.
        kind: what ``data`` and ``blob`` mean to the session.
        about: what a remark is about, such as the turn that it ends; empty for an input.
        batch: of its owner's log in which it was found; no part of what is written.
    """

    life: str
    epoch: int
    seq: int
    kind: str
    data: dict[str, Any] = field(default_factory=dict)
    blob: bytes = b""
    about: str = ""
    batch: int = field(default=0, compare=False)


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

    @property
    def life(self) -> str:
        """What a log calls the session: one that was closed may be opened anew under its id, while
        its old records lie beside others' that are still needed.
        """
        return f"{self.session}/{self.created:.6f}"

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
        """All records in an owner's log that count, in the order in which they were written.

        A batch that is deleted meanwhile is left out. Before that, manifests were written that need
        nothing of it: who reads for a session looks at its ``manifest`` after that.
        """
        found = sorted(self._below(self._at("owners", owner)))
        last = self._last([uri for uri in found if _folder(uri) != "log"])
        numbers = [int(_name(uri)) for uri in found if _folder(uri) == "log"]
        numbers = [number for number in numbers if last is None or number <= last]
        batches = read_many(self._batch(owner, number) for number in numbers)
        for number, data in zip(numbers, batches, strict=True):
            if data is not None:
                yield from unpack_records(data, number)

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

    def manifest(self, session: str) -> Manifest | None:
        """That of a session, of the latest term; None where it is closed, or was never opened."""
        found = self._found(self._at("sessions", session))
        latest = max((each.uri for each in found), key=_term, default="")
        if _term(latest) < 0:
            return None
        (data,) = read_many([latest])
        return _manifest(data) if data else None

    def sessions(self, term: int) -> tuple[list[Manifest], list[list[str]]]:
        """Manifests of all sessions, of each the one of the latest term; and what was left.

        The latter is, of each session that was closed before ``term``, uris to ``delete`` in this
        order, whenever: what is written later has other names.
        """
        uris, left = [], []
        for found in self._sessions():
            latest = max(found, key=lambda each: _term(each.uri))
            if latest.size_bytes and _term(latest.uri) >= 0:
                uris.append(latest.uri)
            elif 0 <= _term(latest.uri) < term:
                left.append([*(each.uri for each in found if each is not latest), latest.uri])
        # One that was closed since it was listed is empty by now, or gone.
        return [_manifest(data) for data in read_many(uris) if data], left

    def delete(self, uris: Iterable[str]) -> None:
        """Delete objects that nobody needs any more, in this order."""
        for uri in uris:
            delete_object(uri)

    def _sessions(self) -> Iterable[list[ObjectStat]]:
        """Of each session all that there is."""
        sessions: dict[str, list[ObjectStat]] = {}
        for found in self._found(self._at("sessions")):
            sessions.setdefault(_folder(found.uri), []).append(found)
        return sessions.values()

    def write_snapshot(self, session: str, name: str, data: bytes) -> None:
        """Keep ``data`` under ``name``."""
        write_bytes(self._at("sessions", session, name), data)

    def read_snapshot(self, session: str, name: str) -> bytes:
        """What ``write_snapshot`` kept."""
        return read_bytes(self._at("sessions", session, name))

    def delete_snapshot(self, session: str, name: str) -> None:
        """Delete it if it is there."""
        delete_object(self._at("sessions", session, name))

    def close_session(self, session: str, term: int = 0) -> list[str]:
        """Say that a session is closed: its manifest of ``term`` is empty from then on.

        Returns:
            What is left of it: uris to ``delete`` in this order once nobody can want it back. The
            empty manifest is among them only where no earlier term has written one: what a
            directory that was taken over still writes cannot bring the session back.
        """
        manifest = self._manifest_uri(session, term)
        write_bytes(manifest, b"")
        left = [uri for uri in self._below(self._at("sessions", session)) if uri != manifest]
        older = any(0 <= _term(uri) < term for uri in left)
        return left if older else [*left, manifest]

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


def session_of(life: str) -> str:
    """The id of the session that has, or had, this ``Manifest.life``."""
    return life.rpartition("/")[0]


def _name(uri: str) -> str:
    return uri.rpartition("/")[2]


def _folder(uri: str) -> str:
    return _name(uri.rpartition("/")[0])


def _term(uri: str) -> int:
    """Of a manifest; -1 where it is none."""
    named = _MANIFEST.fullmatch(_name(uri))
    return int(named[1] or 0) if named else -1


def _manifest(data: bytes) -> Manifest:
    fields = json.loads(data)
    return Manifest(**{**fields, "tail": tuple(fields["tail"])})


def pack_records(records: Sequence[Record]) -> bytes:
    """Records as bytes: a table of them in JSON, then their blobs; compressed."""
    table = [[r.life, r.epoch, r.seq, r.kind, r.data, r.about, len(r.blob)] for r in records]
    head = json.dumps(table).encode()
    body = b"".join([len(head).to_bytes(4, "little"), head, *(r.blob for r in records)])
    return len(body).to_bytes(8, "little") + pa.compress(body, _CODEC, asbytes=True)


def unpack_records(data: bytes, batch: int = 0) -> Iterator[Record]:
    """What ``pack_records`` packed; ``batch`` is its number in a log."""
    size = int.from_bytes(data[:8], "little")
    body = memoryview(pa.decompress(data[8:], size, _CODEC, asbytes=True))
    start = 4 + int.from_bytes(body[:4], "little")
    for life, epoch, seq, kind, fields, about, size in json.loads(bytes(body[4:start])):
        blob = bytes(body[start : start + size])
        yield Record(life, epoch, seq, kind, fields, blob, about, batch)
        start += size


def effective(records: Sequence[Record], after: int = 0) -> list[Record]:
    """A session's records as they count, in order, from the logs of all its owners.

    Where a later assignment wrote from some sequence number on, what earlier ones wrote from there
    was never acknowledged. In one assignment, numbers that were acknowledged only rise: an input
    whose number is not above the last says that what was written from its number on had failed as
    far as its writer could tell, though the store has it. Such an input may be in the snapshot by
    now, and its record deleted. But a batch holds one call of a session at most, and a snapshot
    reaches to the end of one: where it ends amid a batch, that had failed too.

    Args:
        records: of one life, each owner's in the order in which they were written.
        after: number that the snapshot reaches to; of records up to it some may be given back.
    """
    first: dict[int, int] = {}
    covered: set[tuple[int, int]] = set()
    for record in records:
        if not record.about:
            first[record.epoch] = min(first.get(record.epoch, record.seq), record.seq)
            if record.batch and record.seq <= after:
                covered.add((record.epoch, record.batch))
    inputs: list[Record] = []
    remarks: dict[tuple[int, str], Record] = {}
    for record in sorted(records, key=lambda r: r.epoch):
        later = [seq for epoch, seq in first.items() if epoch > record.epoch]
        if record.seq >= min(later, default=record.seq + 1):
            continue
        if record.about:
            remarks[record.seq, record.about] = record
            continue
        while inputs and inputs[-1].seq >= record.seq:
            inputs.pop()
        if (record.epoch, record.batch) not in covered:
            inputs.append(record)
    return sorted([*inputs, *remarks.values()], key=lambda r: (r.seq, r.about))
