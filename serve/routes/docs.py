"""What the API's page shows beyond what schemas say: bodies that are not JSON, and examples."""

from __future__ import annotations

from typing import Any

from serve.routes.errors import error_object
from serve.routes.schemas import ErrorBody, FramesReply, ResponseObject, SessionCreate
from serve.routes.sse import EventStream

DESCRIPTION = """
Narrations, answers and summaries from hours of video, live or recorded.

**Sessions** watch one stream each. What `POST /v1/sessions/{id}/frames` and `/responses`
acknowledge is durable: it outlives the replica that holds the session, and the session goes on as
if nothing had happened. Frames and questions have sequence numbers from 1; a number sent again is
answered as before and not applied twice, so after a lost reply send the same again.

**Keys.** Where the service asks for one, send `Authorization: Bearer KEY`; a browser's WebSocket
names the protocols `["longreel", "longreel-key.KEY"]`. Each key sees what was made with it alone.

**Errors** have OpenAI's shape, `{"error": {"message", "type", "param", "code"}}`; programs read
`code`. After 429 and 503 (`Retry-After` says when) the same request may be sent again.

## `WS /v1/sessions/{id}/stream`

Frames in, events out, on one socket. `/v1/sessions/new/stream` opens a session with the query's
`instructions`, `fps`, `silence_threshold`, `memory`, `memory_frames`, `max_tokens`, `kept` and `id`.
`after=N` tells only events above number N (all of them by default); `frames=true` tells
`frame.seen`, too.

| client sends | and gets |
|---|---|
| binary: a picture, or an encoded piece of video | for each frame `frame.accepted` {seq, frame, time_s?, repeated}, `frame.dropped` {seq, reason} or `error` {code, message, seq?, retry_after_s?} |
| `{"type": "frame", "seq": 41, "time_s": 20.0}` | nothing: it describes the next binary message; both fields may be left out |
| `{"type": "response.create", "input": "How many cuts?", "max_output_tokens": 32, "seq": 42}` | `response.accepted` {seq, response, repeated} once it is durable |
| `{"type": "response.cancel", "response": "resp-door-42"}`; without `response` whatever is being said | `response.cancelled` {cancelled} |
| `{"type": "ping"}` | `{"type": "pong"}` |
| `{"type": "session.close"}` | `session.closed`, `session.stats`, close code 1000 |

The server begins with `session.created` {session} and pushes `narration.delta`, `narration`,
`response.created`, `response.delta`, `response.done` and `error`, each with the event's `number`;
`session.goaway` {reason} before a planned move. A malformed message gets one `error`; connection
and session live on. A client that vanishes leaves the session as it is. One that does not read is
let go with close code 4408, one that sends faster than it is listened to with 4429, one whose key was revoked with 4401; other refusals close with 4000 plus the HTTP status.
"""  # noqa: E501


def _error(message: str, code: str, kind: str = "invalid_request_error") -> dict[str, Any]:
    example = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    return {
        "model": ErrorBody,
        "description": f"`{code}`",
        "content": {"application/json": {"example": example}},
    }


#: Replies that every route of sessions can give.
ERRORS: dict[int | str, dict[str, Any]] = {
    400: _error("times must be a JSON list of seconds or null", "invalid_value"),
    404: _error("there is no session 'door'", "session_not_found"),
    409: _error("sequence number 14 leaves a gap: the session has 11", "sequence_gap"),
    410: _error("session 'door' is closed", "session_closed"),
    413: _error("the body is larger than 536870912 bytes", "media_too_large"),
    415: _error("frames are multipart/form-data, image/* or video/*", "unsupported_media_type"),
    429: _error("all replicas have as much as they can do", "overloaded", "rate_limit_error"),
    503: _error("no replica of the model is up", "unavailable", "server_error"),
}

_KEY_EXAMPLES = {
    401: error_object(401, "the API key is not known, or was revoked", "invalid_api_key"),
    429: error_object(429, "the key may push 4 frames a second", "quota_exceeded"),
}

#: What routes that need an API key can reply besides, as OpenAPI spells it.
KEY_ERRORS: dict[int, dict[str, Any]] = {
    status: {
        "description": f"`{example['error']['code']}`",
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/ErrorBody"},
                "example": example,
            }
        },
    }
    for status, example in _KEY_EXAMPLES.items()
}

#: And any route, to what does not fit its schema.
UNUSABLE = _error("fps: Input should be greater than or equal to 1e-06", "invalid_value")

#: Or whose body does not come.
SILENT = _error("the body stopped coming", "request_timeout")

WANTED = SessionCreate.model_config["json_schema_extra"]["example"]  # type: ignore[index]

#: Of routes that have no session: what else can be wrong with them.
MEDIA_ERRORS: dict[int | str, dict[str, Any]] = {
    400: _error("the picture cannot be decoded: it is truncated", "media_error"),
    404: _error("there is no file 'file-9b2e'", "file_not_found"),
    413: ERRORS[413],
    415: _error("'abc' is not a video", "unsupported_media_type"),
    429: ERRORS[429],
    503: ERRORS[503],
}


def _shows(example: Any) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {"application/json": {"example": example}}}}


_MODEL = {
    "id": "longreel-tiny",
    "object": "model",
    "created": 0,
    "owned_by": "longreel",
    "revision": "1f0c9a3be2d4",
    "fps": 2.0,
    "keep_ratio": 0.2,
    "router": "bounded",
    "quantize": None,
}
MODEL = _shows(_MODEL)
MODELS = _shows({"object": "list", "data": [_MODEL]})

_FILE = {
    "id": "file-9b2e",
    "object": "file",
    "bytes": 1048576,
    "created_at": 1767225600,
    "filename": "door.mp4",
    "purpose": "user_data",
    "status": "processed",
}
FILE = _shows(_FILE)
FILES = _shows(
    {
        "object": "list",
        "data": [_FILE],
        "first_id": "file-9b2e",
        "last_id": "file-9b2e",
        "has_more": False,
    }
)
FILE_GONE = _shows({"id": "file-9b2e", "object": "file", "deleted": True})
UPLOAD: dict[str, Any] = {
    "requestBody": {
        "content": {
            "multipart/form-data": {
                "example": {"file": "(bytes of the video)", "purpose": "user_data"}
            }
        }
    }
}

#: Each event of a stream; its data is JSON, but for the ``[DONE]`` of a chat.
_EVENT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "event": {"type": "string"},
        "data": {"type": "string"},
    },
}

CHAT = _shows(
    {
        "id": "chatcmpl-5d1c",
        "object": "chat.completion",
        "created": 1767225600,
        "model": "longreel-tiny",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Three cuts."},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 612,
            "completion_tokens": 4,
            "total_tokens": 616,
            "prompt_tokens_details": {"vision_tokens": 600},
        },
    }
)
CHAT[200]["content"]["text/event-stream"] = {
    "schema": _EVENT,
    "example": 'data: {"id":"chatcmpl-5d1c","object":"chat.completion.chunk",...}\n\n'
    "data: [DONE]\n\n",
}

_BINARY = {"schema": {"type": "string", "format": "binary"}, "example": "(bytes of the picture)"}
_PIECE = {"schema": {"type": "string", "format": "binary"}, "example": "(bytes of the video)"}
_FORM = {
    "schema": {
        "type": "object",
        "required": ["frames"],
        "properties": {
            "frames": {
                "type": "array",
                "items": {"type": "string", "format": "binary"},
                "description": "JPEG, PNG or WebP pictures",
            },
            "times": {"type": "string", "description": "JSON list of their seconds, or null"},
            "seq": {"type": "integer", "description": "sequence number of the first"},
        },
    },
    "example": {"frames": ["(bytes)", "(bytes)"], "times": "[20.0, 20.5]", "seq": 41},
}

FRAMES: dict[str, Any] = {
    "response_model": FramesReply,
    "responses": {202: {"model": FramesReply, "description": "With `wait=false`: durable"}},
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": _FORM,
                "image/jpeg": _BINARY,
                "image/png": _BINARY,
                "image/webp": _BINARY,
                "video/mp4": _PIECE,
                "video/webm": _PIECE,
            },
        }
    },
}

_ANSWER = """event: response.created
data: {"id":"resp-door-42","object":"response","session":"door","seq":42,"status":"in_progress",\
"output_text":"","usage":null,"repeated":false}

id: 58
event: response.delta
data: {"response":"resp-door-42","delta":"Three"}

id: 60
event: response.done
data: {"id":"resp-door-42","object":"response","session":"door","seq":42,"status":"completed",\
"output_text":"Three cuts.","usage":{"output_tokens":4},"repeated":false}
"""

RESPONSES: dict[str, Any] = {
    "response_model": ResponseObject,
    "responses": {
        200: {
            "description": "The answer; with `stream`, server-sent events",
            "content": {"text/event-stream": {"schema": _EVENT, "example": _ANSWER}},
        }
    },
}

_EVENTS = """: open

id: 57
event: narration
data: {"frame":40,"time_s":20.0,"text":"A red ball enters from the left.","cancelled":false}

: keep-alive

id: 58
event: session.closed
data: {}
"""

EVENTS: dict[str, Any] = {
    "response_model": None,
    "response_class": EventStream,
    "responses": {
        200: {
            "description": "Events as they come",
            "content": {"text/event-stream": {"schema": _EVENT, "example": _EVENTS}},
        }
    },
}
