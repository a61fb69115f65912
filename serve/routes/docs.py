"""What the API's page shows beyond what schemas say: bodies that are not JSON, and examples."""

from __future__ import annotations

from typing import Any

from serve.routes.schemas import ErrorBody, FramesReply, ResponseObject


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
    409: _error("expected number 12, not 14", "sequence_gap"),
    410: _error("session 'door' is closed", "session_closed"),
    413: _error("the body is larger than 536870912 bytes", "media_too_large"),
    415: _error("frames are multipart/form-data, image/* or video/*", "unsupported_media_type"),
    429: _error("all sessions are taken", "overloaded", "rate_limit_error"),
    503: _error("no replica answers at present", "unavailable", "server_error"),
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
data: {"id":"resp-42","object":"response","session":"door","seq":42,"status":"in_progress",\
"output_text":"","usage":null}

id: 58
event: response.delta
data: {"response":"resp-42","delta":"Three"}

id: 60
event: response.done
data: {"id":"resp-42","object":"response","session":"door","seq":42,"status":"completed",\
"output_text":"Three cuts.","usage":{"output_tokens":4}}
"""

RESPONSES: dict[str, Any] = {
    "response_model": ResponseObject,
    "responses": {
        200: {
            "description": "The answer; with `stream`, server-sent events",
            "content": {"text/event-stream": {"schema": {"type": "string"}, "example": _ANSWER}},
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
    "responses": {
        200: {
            "description": "Events as they come",
            "content": {"text/event-stream": {"schema": {"type": "string"}, "example": _EVENTS}},
        }
    },
}
