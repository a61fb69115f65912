"""The WebSocket of a session: who is let in, and to which session."""

# Without postponed annotations: routes travel to the gateway's process with what their code names,
# and a type that stands in a string is not among it.
from collections.abc import Collection

from fastapi import APIRouter, WebSocket
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serve.live.items import SessionError, SessionView
from serve.routes.connection import Connection, close, end_of
from serve.routes.context import Context
from serve.routes.conversation import refused
from serve.routes.errors import first_problem
from serve.routes.guard import PROTOCOL
from serve.routes.schemas import MemoryChoice, SessionCreate


class Wanted(BaseModel):
    """The query of a connection; all but the first two fields open a session."""

    after: int = Field(0, ge=0)
    frames: bool = False
    instructions: str | None = None
    fps: float | None = None
    silence_threshold: float = 0.0
    memory: str = "window"
    memory_frames: int = 256
    max_tokens: int = 96
    id: str | None = None
    kept: bool = False

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    def create(self) -> SessionCreate:
        """The session that it asks for."""
        memory = MemoryChoice.model_validate({"policy": self.memory, "frames": self.memory_frames})
        fields = self.model_dump(exclude={"after", "frames", "memory", "memory_frames"})
        return SessionCreate.model_validate({**fields, "memory": memory})


class Connections:
    """The open ones of this gateway: ``app.state.connections``."""

    def __init__(self) -> None:
        self.open: set[Connection] = set()

    def goaway(self, reason: str, sessions: Collection[str] | None = None) -> None:
        """Tell clients of ``sessions``, or all, that what they stream is about to move."""
        for connection in self.open:
            if sessions is None or connection.session in sessions:
                connection.goaway(reason)


async def _admit(
    context: Context, session: str, query: dict[str, str]
) -> tuple[SessionView, Wanted]:
    """The session to stream, opened where it is ``new``."""
    try:
        wanted = Wanted.model_validate(query)
        opening = wanted.create() if session == "new" else None
    except ValidationError as error:
        raise SessionError("invalid_value", first_problem(error.errors())[0]) from None
    if opening:
        return await context.sessions.open(opening.options(), opening.id), wanted
    view = await context.sessions.view(session)
    if view.state == "closed" and wanted.after >= view.events:
        raise SessionError("session_closed", f"session {session!r} is closed")
    return view, wanted


async def stream(socket: WebSocket, session: str) -> None:
    """Frames and questions in, receipts and events out; see the API's description."""
    context: Context = socket.app.state.context
    connections: Connections = socket.app.state.connections
    # Before anything that may be refused: browsers tell a page why only of an accepted one.
    spoken = PROTOCOL if PROTOCOL in socket.scope.get("subprotocols", ()) else None
    await socket.accept(spoken)
    try:
        view, wanted = await _admit(context, session, dict(socket.query_params))
    except SessionError as error:
        await close(socket, end_of(error), refused(error))
        return
    connection = Connection(socket, context, view, wanted.after, wanted.frames)
    connections.open.add(connection)
    try:
        await connection.run()
    finally:
        connections.open.discard(connection)


def router() -> APIRouter:
    """The WebSocket under ``/v1/sessions``."""
    api = APIRouter()
    api.websocket("/v1/sessions/{session}/stream")(stream)
    return api
