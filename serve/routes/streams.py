"""Routes of live sources that the service pulls by itself."""

# Without postponed annotations: routes travel to the gateway's process with what their code names,
# and a type that stands in a string is not among it.
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Path, Request
from pydantic import BaseModel, ConfigDict, Field

from actors.statestore import SESSION_ID
from serve.live.items import SessionError
from serve.routes import docs
from serve.routes.context import Context, Streams
from serve.routes.schemas import SessionCreate

_ERRORS = {status: docs.ERRORS[status] for status in (400, 404, 429, 503)}
_Stream = Annotated[str, Path(description="The stream's id", examples=["door"])]
_STREAM: dict[str, Any] = {
    "id": "door",
    "object": "stream",
    "url": "rtsp://camera.example.org/door",
    "session": "door",
    "state": "running",
    "error": None,
    "reconnect": True,
    "frames": 118,
    "dropped": 2,
    "seq": 120,
    "connections": 1,
    "created": 1767225600,
}


class StreamCreate(SessionCreate):
    """Where the source is, and how the session that follows it watches."""

    url: str = Field(
        min_length=1,
        max_length=8192,
        description="rtsp(s), http(s) (MPEG-TS, MJPEG, MP4, WebM, ...) or s3; a user and password "
        "in it are used and never shown.",
    )
    reconnect: bool = Field(
        False, description="Open the source again, with growing pauses, when it breaks off."
    )
    id: str | None = Field(
        None,
        pattern=f"^{SESSION_ID}$",
        description="A wish for the stream and its session; it must be free.",
    )

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"url": "rtsp://camera.example.org/door", "fps": 2, "reconnect": True}
        }
    )


class StreamObject(BaseModel):
    """A source that is pulled into a session.

    ``frames`` were accepted by the session, ``dropped`` were not; ``seq`` is the last one's
    sequence number. ``error`` says why it is reconnecting, or how it came to its end.
    """

    id: str
    object: Literal["stream"] = "stream"
    url: str
    session: str
    state: Literal["starting", "running", "reconnecting", "ended", "failed"]
    error: str | None
    reconnect: bool
    frames: int
    dropped: int
    seq: int
    connections: int
    created: int

    model_config = ConfigDict(json_schema_extra={"example": _STREAM})


class StreamList(BaseModel):
    """All streams, oldest first; those that ended long ago are forgotten."""

    object: Literal["list"] = "list"
    data: list[StreamObject]

    model_config = ConfigDict(json_schema_extra={"example": {"object": "list", "data": [_STREAM]}})


def router() -> APIRouter:
    """The routes under ``/v1/streams``."""
    api = APIRouter(prefix="/v1/streams", tags=["streams"], responses=_ERRORS)
    api.post("", status_code=201, summary="Follow a live source")(start_stream)
    api.get("", summary="Streams")(list_streams)
    api.get("/{stream}", summary="How a stream stands")(get_stream)
    api.delete("/{stream}", summary="Stop following")(stop_stream)
    return api


def _streams(request: Request) -> Streams:
    context: Context = request.app.state.context
    if context.streams is None:
        raise SessionError("unavailable", "this service pulls no streams")
    return context.streams


async def start_stream(request: Request, wanted: StreamCreate) -> StreamObject:
    """Opens a session and pulls the source into it. The session's events tell what the model says,
    and questions may be asked in it at any time. A live source never waits: frames that the model
    has no time for are dropped and counted. A recording is played at its own pace, once.
    """
    streams = _streams(request)
    told: dict[str, Any] = {
        "url": wanted.url,
        "reconnect": wanted.reconnect,
        "id": wanted.id,
        "options": wanted.options(),
    }
    return StreamObject.model_validate(await streams.start(told))


async def list_streams(request: Request) -> StreamList:
    """Oldest first."""
    found = await _streams(request).list()
    return StreamList(data=[StreamObject.model_validate(each) for each in found])


async def get_stream(request: Request, stream: _Stream) -> StreamObject:
    """Its state, and why it is so."""
    return _found(stream, await _streams(request).get(stream))


async def stop_stream(request: Request, stream: _Stream) -> StreamObject:
    """The source is let go within two seconds. The session stays, and can be asked, until it is
    deleted itself."""
    return _found(stream, await _streams(request).stop(stream))


def _found(stream: str, found: dict[str, Any] | None) -> StreamObject:
    if found is None:
        raise HTTPException(404, f"there is no stream {stream!r}")
    return StreamObject.model_validate(found)
