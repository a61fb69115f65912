"""What requests and replies of sessions look like; the examples are those of the API's page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from actors.grid import LOWEST_FPS
from actors.statestore import SESSION_ID
from serve.live.items import MOST_CHARACTERS, Receipt, SessionOptions, SessionView

#: Of one narration or answer, in tokens.
MOST_TOKENS = 4096


class _Shape(BaseModel):
    # A misspelt option that is taken in silence is worse than an error.
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class ErrorDetail(BaseModel):
    """What went wrong; programs read ``code``."""

    message: str
    type: Literal["invalid_request_error", "rate_limit_error", "server_error"]
    param: str | None = None
    code: str | None = None


class ErrorBody(BaseModel):
    """An error in OpenAI's shape."""

    error: ErrorDetail

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "error": {
                    "message": "there is no session 'door'",
                    "type": "invalid_request_error",
                    "param": None,
                    "code": "session_not_found",
                }
            }
        }
    )


class Alive(BaseModel):
    """It answers."""

    status: Literal["ok"]

    model_config = ConfigDict(json_schema_extra={"example": {"status": "ok"}})


class MemoryChoice(_Shape):
    """What the session remembers of its past."""

    policy: Literal["full", "window", "retrieve"] = "window"
    frames: int = Field(256, ge=32, le=65_536, multiple_of=32, description="of the window")


class SessionCreate(_Shape):
    """How a session watches; all of it may be left out."""

    instructions: str | None = Field(
        None,
        max_length=MOST_CHARACTERS,
        description="Opens the stream; the model's own when left out.",
    )
    fps: float | None = Field(
        None,
        ge=LOWEST_FPS,
        le=60,
        description="Frames a second that the model sees; its own by default.",
    )
    silence_threshold: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Probability that silence must reach for the model to stay silent.",
    )
    memory: MemoryChoice = MemoryChoice(policy="window", frames=256)
    max_tokens: int = Field(
        96, ge=1, le=MOST_TOKENS, description="Bound on one narration or answer."
    )
    id: str | None = Field(None, pattern=f"^{SESSION_ID}$", description="A wish; it must be free.")
    kept: bool = Field(
        False,
        description="Remember, of the last frames, which vision tokens the router kept.",
    )

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "instructions": "Narrate what changes.",
                "fps": 2,
                "silence_threshold": 0.4,
                "memory": {"policy": "window", "frames": 256},
            }
        }
    )

    @field_validator("id")
    @classmethod
    def _is_free(cls, name: str | None) -> str | None:
        if name == "new":
            raise ValueError("no session is called new")
        return name

    def options(self) -> SessionOptions:
        """As sessions take them."""
        return SessionOptions(
            instruction=self.instructions,
            fps=self.fps,
            silence_threshold=self.silence_threshold,
            memory=self.memory.policy,
            memory_frames=self.memory.frames,
            max_tokens=self.max_tokens,
            kept=self.kept,
        )


class SessionOptionsShown(BaseModel):
    """How the session watches."""

    instructions: str | None
    fps: float
    silence_threshold: float
    memory: MemoryChoice
    max_tokens: int
    kept: bool


_SESSION: dict[str, Any] = {
    "id": "door",
    "object": "session",
    "state": "live",
    "created": 1767225600,
    "options": {
        "instructions": "Narrate what changes.",
        "fps": 2.0,
        "silence_threshold": 0.4,
        "memory": {"policy": "window", "frames": 256},
        "max_tokens": 96,
        "kept": False,
    },
    "seq": 41,
    "frames": 40,
    "waiting_frames": 2,
    "last_event": 57,
    "replica": "replica-1",
    "epoch": 1,
}


class SessionObject(BaseModel):
    """A session from outside.

    ``seq`` is the last sequence number it has, ``last_event`` the number of its last event;
    ``waiting_frames`` of its ``frames`` are not seen yet.
    """

    id: str
    object: Literal["session"] = "session"
    state: Literal["live", "idle", "recovering", "closed"]
    created: int
    options: SessionOptionsShown
    seq: int
    frames: int
    waiting_frames: int
    last_event: int
    replica: str | None
    epoch: int

    model_config = ConfigDict(json_schema_extra={"example": _SESSION})

    @classmethod
    def of(cls, view: SessionView, fps: float) -> SessionObject:
        """``view`` as the API spells it; ``fps`` is the model's own."""
        given = view.options
        return cls(
            id=view.id,
            state=view.state,
            created=int(view.created),
            options=SessionOptionsShown(
                instructions=given.instruction,
                fps=given.fps or fps,
                silence_threshold=given.silence_threshold,
                memory=MemoryChoice(policy=given.memory, frames=given.memory_frames),
                max_tokens=given.max_tokens,
                kept=given.kept,
            ),
            seq=view.seq,
            frames=view.frames,
            waiting_frames=view.waiting_frames,
            last_event=view.events,
            replica=view.replica,
            epoch=view.epoch,
        )


class SessionList(BaseModel):
    """All sessions that are not closed."""

    object: Literal["list"] = "list"
    data: list[SessionObject]

    model_config = ConfigDict(json_schema_extra={"example": {"object": "list", "data": [_SESSION]}})


class KeptObject(BaseModel):
    """What the router kept of one frame.

    Its vision tokens lie in ``rows`` and ``columns`` over the picture; ``counts`` says of each, row
    by row, in how many of the ``layers`` that route it ran. All other layers run every token.
    """

    object: Literal["kept"] = "kept"
    session: str
    frame: int
    rows: int
    columns: int
    layers: int
    counts: list[int]

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "object": "kept",
                "session": "door",
                "frame": 40,
                "rows": 2,
                "columns": 3,
                "layers": 3,
                "counts": [0, 3, 1, 0, 0, 2],
            }
        }
    )


class SessionDeleted(BaseModel):
    """It is gone, with its state."""

    id: str
    object: Literal["session"] = "session"
    deleted: Literal[True] = True

    model_config = ConfigDict(
        json_schema_extra={"example": {"id": "door", "object": "session", "deleted": True}}
    )


class ReceiptShown(BaseModel):
    """How one frame was answered.

    ``reason`` of a dropped one: ``rate`` (it came faster than the session's fps), ``late`` (not
    after the last frame), ``lag`` (too many frames wait). ``repeated``: the session had this
    sequence number already; nothing was done again.
    """

    seq: int
    outcome: Literal["accepted", "dropped"]
    reason: Literal["rate", "late", "lag"] | None
    frame: int | None
    repeated: bool

    @classmethod
    def of(cls, receipt: Receipt) -> ReceiptShown:
        """``receipt`` of a frame as the API spells it."""
        return cls(
            seq=receipt.seq,
            outcome=receipt.outcome,
            reason=receipt.reason,
            frame=receipt.frame,
            repeated=receipt.repeated,
        )


class OutcomeShown(BaseModel):
    """What the model made of one accepted frame; ``p_silence`` is null where it failed."""

    frame: int
    time_s: float | None
    p_silence: float | None
    narration: str | None


class FramesReply(BaseModel):
    """Receipts of all frames sent, in their order, and outcomes of those accepted.

    With ``wait=false`` there are no outcomes; the events tell them.
    """

    object: Literal["frames"] = "frames"
    receipts: list[ReceiptShown]
    outcomes: list[OutcomeShown] | None = None

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "object": "frames",
                "receipts": [
                    {
                        "seq": 41,
                        "outcome": "accepted",
                        "reason": None,
                        "frame": 40,
                        "repeated": False,
                    }
                ],
                "outcomes": [
                    {
                        "frame": 40,
                        "time_s": 20.0,
                        "p_silence": 0.12,
                        "narration": "A red ball enters from the left.",
                    }
                ],
            }
        }
    )

    @classmethod
    def of(cls, receipts: Sequence[Receipt], outcomes: list[OutcomeShown] | None) -> FramesReply:
        """The reply to frames that were answered with ``receipts``."""
        return cls(receipts=[ReceiptShown.of(r) for r in receipts], outcomes=outcomes)


class Ask(_Shape):
    """A question after all frames given before it."""

    input: str = Field(min_length=1, max_length=MOST_CHARACTERS)
    max_output_tokens: int | None = Field(None, ge=1, le=MOST_TOKENS)
    seq: int | None = Field(
        None, ge=1, description="Its sequence number, so that a retry is not asked twice."
    )
    stream: bool = False

    model_config = ConfigDict(
        json_schema_extra={"example": {"input": "How many cuts so far?", "max_output_tokens": 32}}
    )


class Usage(BaseModel):
    """What the answer cost."""

    output_tokens: int


class ResponseObject(BaseModel):
    """An answer; ``length`` says that it was cut at the bound.

    ``repeated``: the session had this sequence number already, from an attempt before or from
    another client; nothing was asked again.
    """

    id: str
    object: Literal["response"] = "response"
    session: str
    seq: int
    status: Literal["in_progress", "completed", "length", "cancelled", "failed"]
    output_text: str = ""
    usage: Usage | None = None
    repeated: bool = False

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": "resp-door-42",
                "object": "response",
                "session": "door",
                "seq": 42,
                "status": "completed",
                "output_text": "Three cuts.",
                "usage": {"output_tokens": 4},
                "repeated": False,
            }
        }
    )

    def finished(self, data: dict[str, Any]) -> ResponseObject:
        """As it stands after the event ``response.done`` with ``data``."""
        return self.model_copy(
            update={
                "status": data["status"],
                "output_text": data["text"],
                "usage": Usage(output_tokens=data["output_tokens"]),
            }
        )


class Cancelled(BaseModel):
    """Whether there was anything to end."""

    object: Literal["cancel"] = "cancel"
    session: str
    cancelled: bool

    model_config = ConfigDict(
        json_schema_extra={"example": {"object": "cancel", "session": "door", "cancelled": True}}
    )
