"""What is kept of a stream, and where: ``streams/`` in the state store."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from actors.objects import delete_object, join_uri, list_objects, read_bytes, write_bytes
from longreel.errors import StorageError

State = Literal["starting", "running", "reconnecting", "ended", "failed"]
_FORGET_S = 24 * 3600.0


@dataclass(frozen=True)
class StreamRecord:
    """What is kept of a stream: enough to go on after its process died, and no secret.

    Attributes:
        url: without credentials.
        fps, side: of the session's frames, a second and in pixels.
        reconnect: open the source again when it breaks off.
        began_at: seconds since 1970 at time 0 of the stream.
        error: why it is reconnecting or has failed, one line.
        frames: accepted by the session; ``dropped`` were not.
        seq: last sequence number that the session gave to a frame.
        last_s: time of the last frame that was given; None before the first.
        connections: how often the source was opened.
        deaths: of the process that pulled it, since the last frame.
        ended_at: seconds since 1970; None while it goes on.
        owner: id of the API key that it belongs to, as its session does.
    """

    id: str
    url: str
    session: str
    fps: float
    side: int
    reconnect: bool
    created: float
    began_at: float
    state: State = "starting"
    error: str | None = None
    frames: int = 0
    dropped: int = 0
    seq: int = 0
    last_s: float | None = None
    connections: int = 0
    deaths: int = 0
    ended_at: float | None = None
    owner: str | None = None

    @property
    def over(self) -> bool:
        """Whether nothing more will come of it."""
        return self.state in ("ended", "failed")

    def failed(self, error: str) -> StreamRecord:
        """The same, over now for a reason of one line."""
        return replace(self, state="failed", error=error, ended_at=time.time())

    def as_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)

    @classmethod
    def of(cls, kept: dict[str, Any]) -> StreamRecord:
        """The record that ``as_dict`` gave, also of a later version."""
        known = {each.name for each in fields(cls)}
        return cls(**{name: value for name, value in kept.items() if name in known})


def _uri(store: str, stream: str) -> str:
    return join_uri(store, "streams", f"{stream}.json")


def write_record(store: str, record: StreamRecord) -> None:
    """Keep it. Raises ``StorageError``."""
    write_bytes(_uri(store, record.id), json.dumps(record.as_dict()).encode())


def delete_record(store: str, stream: str) -> None:
    """Forget it. Raises ``StorageError``."""
    delete_object(_uri(store, stream))


def read_record(store: str, stream: str) -> StreamRecord | None:
    """What is kept of a stream, None where nothing is. Raises ``StorageError``."""
    try:
        return StreamRecord.of(json.loads(read_bytes(_uri(store, stream))))
    except StorageError as error:
        if error.kind == "NotFound":
            return None
        raise


def read_records(store: str) -> list[StreamRecord]:
    """All records, oldest first; what ended a day ago is forgotten. Raises ``StorageError``."""
    try:
        uris = [found.uri for found in list_objects(join_uri(store, "streams"))]
    except StorageError as error:
        if error.kind != "NotFound":
            raise
        return []
    names = [uri.rpartition("/")[2].removesuffix(".json") for uri in uris if uri.endswith(".json")]
    records = [record for name in names if (record := read_record(store, name)) is not None]
    for record in records:
        if record.ended_at is not None and time.time() - record.ended_at > _FORGET_S:
            delete_record(store, record.id)
    return sorted(
        (r for r in records if r.ended_at is None or time.time() - r.ended_at <= _FORGET_S),
        key=lambda record: record.created,
    )
