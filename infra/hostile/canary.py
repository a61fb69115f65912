"""A port of this machine that nobody has any business with, and how often somebody came."""

from __future__ import annotations

import contextlib
import socket
import threading


class Canary:
    """Listens on loopback, IPv4 and where there is IPv6 also there, on one port.

    Attributes:
        hits: first bytes of each connection.
    """

    def __init__(self) -> None:
        self.hits: list[bytes] = []
        self._sockets = [socket.create_server(("127.0.0.1", 0))]
        self.port: int = self._sockets[0].getsockname()[1]
        with contextlib.suppress(OSError):
            self._sockets.append(socket.create_server(("::1", self.port), family=socket.AF_INET6))
        for each in self._sockets:
            threading.Thread(target=self._listen, args=(each,), daemon=True).start()

    def __enter__(self) -> Canary:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _listen(self, listening: socket.socket) -> None:
        while True:
            try:
                came, _ = listening.accept()
            except OSError:
                return
            with came, contextlib.suppress(OSError):
                came.settimeout(0.5)
                self.hits.append(b"")
                self.hits[-1] = came.recv(200)
                came.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret")
