"""Ports for servers that tests start."""

from __future__ import annotations

import socket
from contextlib import ExitStack


def free_ports(n: int) -> list[int]:
    """Ports that nothing listened on a moment ago, all different."""
    with ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket()) for _ in range(n)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
