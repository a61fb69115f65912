"""Server-sent events: how they are written, and a session's events as such a stream."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from fastapi.responses import StreamingResponse

from serve.calls import Sessions
from serve.live.items import SessionError, SessionEvent
from serve.routes.errors import error_object, status_of

#: Seconds of silence after which a comment is sent, so that proxies do not cut the connection.
KEEP_ALIVE_S = 15.0
#: Bound on one call for events.
_WAIT_S = 10.0


def format_event(type_: str, data: Mapping[str, Any], number: int | None = None) -> str:
    """One event; ``number`` is what a client that comes back sends as ``Last-Event-ID``."""
    head = "" if number is None else f"id: {number}\n"
    # JSON has no line breaks of its own, so the data is one line.
    return f"{head}event: {type_}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n"


def format_comment(text: str) -> str:
    """A line that clients ignore."""
    return f": {text}\n\n"


def format_error(error: SessionError) -> str:
    """An error that comes when the status has been sent already."""
    return format_event("error", error_object(status_of(error), error.message, error.code))


class EventStream(StreamingResponse):
    """A response of server-sent events."""

    media_type = "text/event-stream"

    # FastAPI reads the status for its page off this signature.
    def __init__(self, content: AsyncIterator[str], status_code: int = 200) -> None:
        # The second header keeps nginx from holding events back.
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(content, status_code, headers)


async def events_until_closed(
    sessions: Sessions, session: str, after: int, wait_s: float = _WAIT_S
) -> AsyncIterator[SessionEvent | None]:
    """Events above ``after`` until the session is closed; None at least every ``wait_s`` seconds
    of silence.

    Each call is awaited here and no task is made, so whoever stops listening leaves nothing.
    """
    while True:
        told = await sessions.events(session, after, wait_s)
        for event in told:
            yield event
            after = event.number
            if event.type == "session.closed":
                return
        if not told:
            yield None
            # A listener that was given the end already would wait for ever.
            if (await sessions.view(session)).state == "closed":
                return


async def session_stream(
    sessions: Sessions, session: str, after: int, frames: bool
) -> AsyncIterator[str]:
    """A session's events as server-sent events; ``frame.seen`` among them if ``frames``."""
    yield format_comment("open")
    sent = time.monotonic()
    try:
        async for event in events_until_closed(
            sessions, session, after, min(_WAIT_S, KEEP_ALIVE_S / 2)
        ):
            if event is not None and (frames or event.type != "frame.seen"):
                yield format_event(event.type, event.data, event.number)
                sent = time.monotonic()
            elif time.monotonic() - sent >= KEEP_ALIVE_S:
                yield format_comment("keep-alive")
                sent = time.monotonic()
    except SessionError as error:
        yield format_error(error)
