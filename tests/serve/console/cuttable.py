"""A way to a server that can be cut, as a network is: what goes through it breaks off."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

from tests.ports import free_ports


class CuttableWay:
    """Listens on a port of its own and passes bytes to ``port`` of loopback, while it is up."""

    def __init__(self, port: int) -> None:
        self._to = port
        (self._port,) = free_ports(1)
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._up = False
        self._listener: socket.socket | None = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> CuttableWay:
        self.mend()
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()

    def mend(self) -> None:
        """Take connections again."""
        self._listener = socket.create_server(("127.0.0.1", self._port))
        self._up = True
        threading.Thread(target=self._listen, args=(self._listener,), daemon=True).start()

    def cut(self) -> None:
        """Break all connections, and refuse new ones."""
        with self._lock:
            self._up = False
            assert self._listener is not None
            # Closing alone does not wake whoever waits in accept.
            for each in (self._listener, *self._open):
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
                each.close()
            self._open.clear()

    def _listen(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
                server = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                return
            with self._lock:
                self._open |= {client, server}
                if not self._up:
                    client.close()
                    server.close()
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=self._pass, args=(source, target), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            with self._lock:
                self._open.discard(each)
            each.close()
