"""Keeps pages of other sites from a service that is for this machine alone and asks for no key.

A browser on this machine connects for any page that it shows: a WebSocket to a loopback address
needs nobody's leave, and a name of the page's own site may be made to lead here from one moment to
the next (DNS rebinding). What no page can change is what the browser says of it: the name by which
it came here (``Host``) and the site that it is of (``Origin``).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from serve.routes.errors import refuse

_SAID = (b"host", b"origin")
# A WebSocket's close has room for 123 bytes.
_MESSAGE = "without API keys only names and pages of this machine are served: longreel serve --keys"


class OwnPages:
    """ASGI middleware: refuses requests and WebSockets that come by, or from, another name."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and is_foreign(scope["headers"]):
            await refuse(scope, receive, send, 403, _MESSAGE, "origin_not_allowed")
            return
        await self._app(scope, receive, send)


def is_foreign(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a browser says that it sends this by another name, or for a page from elsewhere.

    Programs say nothing of a page. A page out of a file says ``null``, as one does that hides
    where it is from.

    Args:
        headers: as ASGI has them, names in lower case.
    """
    return not all(_is_here(name, value.decode("latin-1")) for name, value in headers)


def _is_here(name: bytes, value: str) -> bool:
    if name not in _SAID:
        return True
    try:
        host = urlsplit(value if name == b"origin" else f"//{value}").hostname
    except ValueError:
        return False
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
