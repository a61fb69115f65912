"""What Ray Serve has fetched of a client's words and nobody has read yet, bounded.

Its proxy takes all that a client sends, and the gateway fetches all of that, whether it is read or
not: no client is ever held back. So one that goes on sending without being listened to is cut off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.routes.errors import error_response

#: Of one WebSocket, in bytes.
MOST_SOCKET_BYTES = 64 * 2**20
#: What a message costs beside its own bytes.
_MESSAGE_BYTES = 1024
#: Close code of a client that sends faster than it is listened to: 4000 plus the HTTP status.
TOO_FAST = 4429


class TooMuchError(Exception):
    """More waits than may."""


class Backlog(asyncio.Queue[Any]):
    """Takes the place of the queue that Ray Serve's ``receive`` has in the gateway.

    Args:
        most_bytes: that may wait.
        on_overflow: called once, when more comes; nothing more is fetched from then on.
    """

    def __init__(self, most_bytes: int, on_overflow: Callable[[], object]) -> None:
        super().__init__()
        self._most_bytes, self._on_overflow = most_bytes, on_overflow
        self._bytes = 0
        self.overflowed = False

    def put_nowait(self, item: Any) -> None:
        """A message, or an error that whoever reads is to meet. Raises ``TooMuchError``."""
        if not self.overflowed and self._bytes + _size(item) > self._most_bytes:
            self.overflowed = True
            self._on_overflow()
            raise TooMuchError  # Ray Serve puts it into the queue, and ends fetching
        super().put_nowait(item)

    def _put(self, item: Any) -> None:
        self._bytes += _size(item)
        super()._put(item)

    def _get(self) -> Any:
        item = super()._get()
        self._bytes -= _size(item)
        return item


def _size(item: Any) -> int:
    if not isinstance(item, dict):
        return 0
    said = item.get("body") or item.get("bytes") or item.get("text") or b""
    return len(said) + _MESSAGE_BYTES


class BoundedBacklog:
    """ASGI middleware: ends requests and sockets whose unread words are too many.

    Args:
        most_body_bytes: of one request.
    """

    def __init__(self, app: ASGIApp, most_body_bytes: int) -> None:
        self._app, self._most_body_bytes = app, most_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        if not hasattr(receive, "_queue") or task is None:
            # A server that itself holds clients back.
            await self._app(scope, receive, send)
            return
        socket = scope["type"] == "websocket"
        most = MOST_SOCKET_BYTES if socket else self._most_body_bytes + MOST_SOCKET_BYTES
        backlog = Backlog(most, task.cancel)
        # What came before this was called.
        waiting: asyncio.Queue[Any] | None = receive._queue
        while waiting is not None and not waiting.empty():
            backlog.put_nowait(waiting.get_nowait())
        receive._queue = backlog
        begun = False

        async def sent(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, sent)
        except asyncio.CancelledError:
            if not backlog.overflowed:
                raise
            task.uncancel()
        if not backlog.overflowed:
            return
        if socket:
            reason = "more was sent than could be listened to"
            await send({"type": "websocket.close", "code": TOO_FAST, "reason": reason})
        elif not begun:
            error = error_response(413, "more was sent than was read", "media_too_large")
            await error(scope, receive, send)
