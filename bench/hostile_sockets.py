"""Clients that break the WebSocket protocol, or HTTP, or the server's patience; raw sockets."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress

_REPLY_S = 10.0
#: For an end to come after a flood.
_AFTER_S = 4.0
_PIECE = bytes(2**20)


def frame(
    opcode: int, data: bytes, *, final: bool = True, masked: bool = True, length: int | None = None
) -> bytes:
    """A frame of the protocol (RFC 6455), or what resembles one.

    Args:
        opcode: with reserved bits above 15.
        length: that it claims to have, if another.
    """
    size = len(data) if length is None else length
    head = bytes([(0x80 if final else 0) | opcode])
    mark = 0x80 if masked else 0
    if size < 126:
        head += bytes([mark | size])
    elif size < 2**16:
        head += bytes([mark | 126]) + struct.pack(">H", size)
    else:
        head += bytes([mark | 127]) + struct.pack(">Q", size)
    return head + (bytes(4) if masked else b"") + data  # a mask of zeros hides nothing


_TEXT, _BINARY, _CLOSE, _PING = 1, 2, 8, 9
_APP_PING = frame(_TEXT, b'{"type": "ping"}')
#: What is sent after the handshake, and no client may send.
_WRONG: dict[str, bytes] = {
    "unmasked": frame(_TEXT, b'{"type": "ping"}', masked=False),
    "text that is no UTF-8": frame(_TEXT, b"\xff\xfe\xc0\x80"),
    "a length of exabytes": frame(_BINARY, b"x", length=2**62),
    "a length below zero": frame(_BINARY, b"x", length=2**63 + 1),
    "a reserved opcode": frame(5, b"x"),
    "reserved bits": frame(0x40 | _TEXT, b"x"),
    "a long ping": frame(_PING, bytes(200)),
    "a ping in parts": frame(_PING, b"x", final=False),
    "a part of nothing": frame(0, b"x"),
    "two beginnings": frame(_TEXT, b"x", final=False) + frame(_TEXT, b"y"),
    "a close of one byte": frame(_CLOSE, b"x"),
    "a close of no meaning": frame(_CLOSE, struct.pack(">H", 999) + b"\xff"),
    "no frame at all": b"GET / HTTP/1.1\r\n\r\n" * 10,
    "half a frame": b"\x82",
}


class _Raw:
    """A connection after its handshake."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ended(self, within_s: float) -> str:
        """How the server ends it: a close code, ``cut``, or ``open`` where it does not."""
        code = "cut"
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            try:
                async with asyncio.timeout(within_s):
                    while True:
                        first, second = await self.reader.readexactly(2)
                        size = second & 127
                        if size == 126:
                            (size,) = struct.unpack(">H", await self.reader.readexactly(2))
                        elif size == 127:
                            (size,) = struct.unpack(">Q", await self.reader.readexactly(8))
                        data = await self.reader.readexactly(size)
                        if first & 15 == _CLOSE:
                            return str(struct.unpack(">H", data[:2])[0]) if size > 1 else "1005"
            except TimeoutError:
                code = "open"
        return code


async def _opened(address: str, path: str, small: bool = False) -> _Raw:
    host, _, port = address.removeprefix("http://").partition(":")
    plain = socket.socket()
    if small:  # so that what is not read stops the server soon
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plain.setblocking(False)
    await asyncio.get_running_loop().sock_connect(plain, (host, int(port)))
    reader, writer = await asyncio.open_connection(sock=plain)
    key = base64.b64encode(os.urandom(16)).decode()
    writer.write(
        f"GET {path}/stream HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    async with asyncio.timeout(_REPLY_S):
        head = await reader.readuntil(b"\r\n\r\n")
    if b" 101 " not in head:
        raise RuntimeError(f"no socket: {head[:100]!r}")
    return _Raw(reader, writer)


async def abuse_sockets(address: str, path: str, flood_mib: int = 96) -> dict[str, str]:
    """Each way to be no client of a session's socket, and how the server ended it.

    Args:
        path: of the session.
        flood_mib: that a client sends without anybody's wish.
    """
    found: dict[str, str] = {}
    for name, sent in _WRONG.items():
        raw = await _opened(address, path)
        raw.writer.write(sent)
        # Half a frame may yet be finished.
        found[name] = await raw.ended(1.0 if name == "half a frame" else _REPLY_S)
        raw.writer.transport.abort()
    ways: dict[str, Callable[[], Awaitable[str]]] = {
        "parts without an end": lambda: _flooded(
            address, path, frame(_BINARY, b"x", final=False), frame(0, _PIECE, final=False), 40
        ),
        "pictures without an end": lambda: _flooded(
            address, path, b"", frame(_BINARY, _PIECE), flood_mib
        ),
        "pings of the protocol, unread": lambda: _flooded(
            address, path, b"", frame(_PING, b"x") * 1000, 50, small=True
        ),
        "pings of ours, unread": lambda: _flooded(
            address, path, b"", _APP_PING * 1000, 200, small=True
        ),
        "half of a handshake": lambda: _half(address, b"GET / HTTP/1.1\r\nUpgr"),
    }
    for name, way in ways.items():
        found[name] = await way()
    return found


async def _flooded(
    address: str, path: str, first: bytes, then: bytes, times: int, small: bool = False
) -> str:
    raw = await _opened(address, path, small)
    try:
        raw.writer.write(first)
        for _ in range(times):
            raw.writer.write(then)
            async with asyncio.timeout(_REPLY_S):
                await raw.writer.drain()
            await asyncio.sleep(0)
    except ConnectionError:
        pass
    except TimeoutError:
        return "held back"
    finally:
        code = await raw.ended(_AFTER_S)
        raw.writer.transport.abort()
    return code


async def _half(address: str, sent: bytes) -> str:
    host, _, port = address.removeprefix("http://").partition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(sent)
    await asyncio.sleep(0.1)
    writer.transport.abort()
    return "left"


async def hold_slowly(address: str, count: int, until: asyncio.Event) -> int:
    """So many connections that send a byte of a request now and then; how many were let be."""
    host, _, port = address.removeprefix("http://").partition(":")
    begun = b"POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    sockets = [await asyncio.open_connection(host, int(port)) for _ in range(count)]
    try:
        for number, (_, writer) in enumerate(sockets):
            # Half of them never end their headers, half their body.
            writer.write(begun + (b"Content-Length: 100\r\n\r\n" if number % 2 else b""))
        while not until.is_set():
            for _, writer in sockets:
                if not writer.is_closing():
                    writer.write(b"x")
            with suppress(TimeoutError):
                await asyncio.wait_for(until.wait(), 1.0)
        return sum(not reader.at_eof() for reader, _ in sockets)
    finally:
        for _, writer in sockets:
            writer.transport.abort()
