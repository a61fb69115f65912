"""Messages between the gateway and a decoding process: a JSON object, and bytes after it.

Nothing is unpickled: what a hostile file makes of a decoding process must not reach further.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Sequence
from typing import Any

_HEAD = struct.Struct(">IQ")
_MOST_HEADER_BYTES = 4 * 2**20

#: A message's object, and the bytes after it.
Message = tuple[dict[str, Any], bytearray]


class WireError(Exception):
    """The other side has gone, or does not keep to the protocol."""


def head_of(header: dict[str, Any], payload: Sequence[bytes | memoryview]) -> bytes:
    """What comes before the bytes of ``payload``."""
    text = json.dumps(header, separators=(",", ":")).encode()
    return _HEAD.pack(len(text), sum(len(part) for part in payload)) + text


def send(
    wire: socket.socket, header: dict[str, Any], payload: Sequence[bytes | memoryview] = ()
) -> None:
    """Send one message; blocks."""
    wire.sendall(head_of(header, payload))
    for part in payload:
        wire.sendall(part)


def receive(wire: socket.socket) -> Message:
    """The next message; blocks. Raises ``WireError`` where the other side has gone."""
    header_bytes, payload_bytes = _HEAD.unpack(_exactly(wire, _HEAD.size))
    header = json.loads(_exactly(wire, header_bytes))
    return header, _exactly(wire, payload_bytes)


def _exactly(wire: socket.socket, count: int) -> bytearray:
    data = bytearray(count)
    rest = memoryview(data)
    while rest:
        got = wire.recv_into(rest)
        if not got:
            raise WireError("the other side has gone")
        rest = rest[got:]
    return data


async def send_soon(
    wire: socket.socket, header: dict[str, Any], payload: Sequence[bytes | memoryview] = ()
) -> None:
    """``send`` on a socket that does not block."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(wire, head_of(header, payload))
    for part in payload:
        await loop.sock_sendall(wire, part)


async def receive_soon(wire: socket.socket, most_bytes: int) -> Message:
    """``receive`` on a socket that does not block, from a side that is not trusted.

    Args:
        most_bytes: bound on the bytes after the object; more are not even made room for.

    Raises:
        WireError: the other side has gone, or sends what is no message.
    """
    header_bytes, payload_bytes = _HEAD.unpack(await _exactly_soon(wire, _HEAD.size))
    if header_bytes > _MOST_HEADER_BYTES or payload_bytes > most_bytes:
        raise WireError("a message is too large")
    try:
        header = json.loads(await _exactly_soon(wire, header_bytes))
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise WireError("a message is no JSON object")
    return header, await _exactly_soon(wire, payload_bytes)


async def _exactly_soon(wire: socket.socket, count: int) -> bytearray:
    loop = asyncio.get_running_loop()
    data = bytearray(count)
    rest = memoryview(data)
    while rest:
        got = await loop.sock_recv_into(wire, rest)
        if not got:
            raise WireError("the other side has gone")
        rest = rest[got:]
    return data
