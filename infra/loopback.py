"""A server on loopback for tests: a thread for each client, whose connections can be cut."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Self


class LoopbackServer:
    """Takes connections on a port of its own while it is entered; what it answers is a subclass's.

    Attributes:
        port: at which it listens.
        ended: set when it stops, for those who answer without end.
    """

    def __init__(self) -> None:
        self.ended = threading.Event()
        self._clients: list[socket.socket] = []
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._door.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def serve(self, client: socket.socket) -> None:
        """Answer one client, in a thread of its own; ends as well where the client has gone."""
        raise NotImplementedError

    def drop(self) -> None:
        """Cut every client's connection, as a network does."""
        for client in self._clients:
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        with suppress(OSError):
            self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()
        self.drop()
        self._thread.join(5)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._door.accept()
                self._clients.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError):
            self.serve(client)
