"""A way for FFmpeg to one RTSP server and nowhere else.

FFmpeg's RTSP client looks names up itself, follows redirects to any host and accepts any
certificate. So it speaks to a port of this machine, and what it says goes to the checked address.
"""

from __future__ import annotations

import re
import select
import socket
import ssl
import threading
from contextlib import suppress
from urllib.parse import quote

from serve.sources.addresses import Place, SourceError, SourceSettings

_MOST_HEADER_BYTES = 64 * 1024
_PIECE = 64 * 1024
#: What FFmpeg and we read alike, and what sends nobody elsewhere. FFmpeg itself takes any number
#: that C does, such as ``+302``.
_STATUS = re.compile(rb"RTSP/\d\.\d[ \t]+[1245]\d\d([ \t].*)?")
_REDIRECT = re.compile(rb"RTSP/\d\.\d[ \t]+3\d\d([ \t].*)?")
#: Longer numbers FFmpeg cuts to 32 bits, and lines to 4 KiB.
_LENGTH = re.compile(rb"content-length:[ \t]{0,9}(\d{1,7})[ \t]*", re.IGNORECASE)
#: Ends of lines or spaces to one reader, and neither to another.
_DOUBTFUL = re.compile(rb"[\0\v\f]")


class RtspGuard:
    """An open connection to ``place`` and the port at which FFmpeg finds it.

    Args:
        place: of ``rtsp``, or of ``rtsps``, whose certificate must be the host's.

    Raises:
        SourceError: the server cannot be reached.
    """

    def __init__(self, place: Place, settings: SourceSettings) -> None:
        self._place = place
        #: Why the connection was cut, where the guard cut it.
        self.refused: str | None = None
        self._server = _connected(place, settings)
        self._door = socket.create_server(("127.0.0.1", 0), backlog=1)
        self._client: socket.socket | None = None
        self._thread = threading.Thread(target=self._serve, name="rtsp-guard", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """What FFmpeg opens; it holds the credentials."""
        user = ""
        if self._place.user is not None:
            user = f"{quote(self._place.user, '')}:{quote(self._place.password or '', '')}@"
        return f"rtsp://{user}127.0.0.1:{self._door.getsockname()[1]}{self._place.target}"

    def __enter__(self) -> RtspGuard:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Cut both sides; whoever waits for a byte of them ends."""
        for each in (self._door, self._server, self._client):
            if each is not None:
                _cut(each)

    def _serve(self) -> None:
        with suppress(OSError, ValueError):  # ValueError: closed meanwhile
            self._client, _ = self._door.accept()
            # One connection alone: a second one would be another client of this machine.
            _cut(self._door)
            self._pass_on(self._client)
        self.close()

    def _pass_on(self, client: socket.socket) -> None:
        # One thread for both ways: TLS connections do not bear two.
        watch = AnswerWatch()
        while True:
            ready, _, _ = select.select([client, self._server], [], [])
            if client in ready:
                asked = client.recv(_PIECE)
                if not asked:
                    return
                self._server.sendall(asked)
            if self._server in ready and (data := _received(self._server)) is not None:
                # Looked at before it is passed on, so that a redirect never arrives.
                self.refused = watch.objection(data)
                if not data or self.refused:
                    return
                client.sendall(data)


class AnswerWatch:
    """Follows what an RTSP server sends, message by message; pure."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._skip = 0

    def objection(self, data: bytes) -> str | None:
        """Why what has come up to ``data`` must not be passed on, None where it may.

        Every answer's status is looked at; pictures, which begin with ``$`` and their length, and
        bodies are passed over.
        """
        self._buffer += data
        while True:
            if self._skip:
                gone = min(self._skip, len(self._buffer))
                del self._buffer[:gone]
                self._skip -= gone
            if self._skip or not self._buffer:
                return None
            if self._buffer[0] == ord("$"):
                if len(self._buffer) < 4:
                    return None
                self._skip = 4 + int.from_bytes(self._buffer[2:4], "big")
                continue
            # Some servers put stray line ends between messages.
            if self._buffer[0] in b"\r\n":
                del self._buffer[0]
                continue
            # FFmpeg takes bare line feeds for ends of lines as well, so these do too.
            head, ends, _ = bytes(self._buffer).replace(b"\r", b"").partition(b"\n\n")
            lines = head.split(b"\n")
            # Without its end the last line may be a part.
            if why := _objection(lines if ends else lines[:-1], lines[-1]):
                return why
            if not ends:
                return "its answer has no end" if len(head) > _MOST_HEADER_BYTES else None
            length = _length(lines)
            if length is None:
                return "its answer has no length"
            self._skip = _head_bytes(self._buffer) + length


def _objection(lines: list[bytes], last: bytes) -> str | None:
    """What speaks against a head of whole ``lines``, and against what ``last`` has so far."""
    if any(_DOUBTFUL.search(line) for line in (*lines, last)):
        return "its answer can be read in more than one way"
    # FFmpeg passes over a picture at the start of any line, and goes on behind it.
    if any(line.startswith(b"$") for line in (*lines, last)):
        return "its answer holds pictures"
    status = lines[0] if lines else b""
    if not status.lstrip().startswith(b"RTSP/") or _STATUS.fullmatch(status):
        return None
    if _REDIRECT.fullmatch(status):
        return "it redirects, which is not followed for RTSP"
    return "its answer has no status"


def _head_bytes(buffer: bytearray) -> int:
    """Bytes up to and with the empty line."""
    line_ends = 0
    for place, byte in enumerate(buffer):
        if byte == ord("\n"):
            line_ends += 1
            if line_ends == 2:
                return place + 1
        elif byte != ord("\r"):
            line_ends = 0
    return len(buffer)


def _length(lines: list[bytes]) -> int | None:
    """Bytes of the body; None where that could be read in more than one way."""
    found: set[int] = set()
    for line in lines[1:]:
        if line.partition(b":")[0].strip().lower() != b"content-length":
            continue
        if not (match := _LENGTH.fullmatch(line)):
            return None
        found.add(int(match[1]))
    return None if len(found) > 1 else sum(found)


def _connected(place: Place, settings: SourceSettings) -> socket.socket:
    try:
        plain = socket.create_connection((place.address, place.port), settings.open_s)
    except OSError as failure:
        why = failure.strerror or "it does not answer"
        raise SourceError(f"cannot connect to {place.host}: {why}") from None
    if place.scheme == "rtsp":
        plain.settimeout(None)
        return plain
    try:
        secure = ssl.create_default_context().wrap_socket(plain, server_hostname=place.host)
    except OSError as failure:
        plain.close()
        why = getattr(failure, "verify_message", "") or "no TLS"
        raise SourceError(f"{place.host} cannot be trusted: {why}") from None
    secure.settimeout(None)
    return secure


def _received(server: socket.socket) -> bytes | None:
    """What has come, empty at the end; None where it was TLS's own and nothing of the server's."""
    server.setblocking(False)
    try:
        # A TLS record has 16 KiB at most: nothing is left behind that select would not see.
        return server.recv(_PIECE)
    except (BlockingIOError, ssl.SSLWantReadError):
        return None
    finally:
        server.setblocking(True)


def _cut(each: socket.socket) -> None:
    with suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    with suppress(OSError):
        each.close()
