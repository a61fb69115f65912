"""A decoding process: one call after the other from its socket, until that is closed.

``python -m serve.decoding.worker DESCRIPTOR MEMORY_BYTES``. It has no credentials, writes no file,
and ends by itself where a call takes too long, even when whoever called has gone.
"""

from __future__ import annotations

import math
import resource
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import numpy as np

from actors.heap import give_back_holes
from actors.media import Opener
from actors.ranged import RangedReader
from longreel.errors import StorageError
from serve.decoding.limits import limit_memory
from serve.decoding.media import (
    Stretch,
    Video,
    decode_image,
    decode_piece,
    decode_stretch,
    open_video,
)
from serve.decoding.wire import WireError, receive, send
from serve.live.items import Pixels, SessionError
from serve.settings import ApiSettings

#: Pixels of pictures that are answered in one message, in bytes, and how long they are gathered:
#: a time limit holds from one message to the next.
_MOST_GATHERED_BYTES, _MOST_GATHERED_S = 16 * 2**20, 1.0
#: After its limit a call has so long until the process ends itself.
_GRACE_S = 2
_FILES = 64
#: Memory that counts as much as is taken for a call of pictures; beyond it is given back.
_LARGE_BYTES = 8 * 2**20

#: A part of an answer: what is said of some frames, and their pixels.
Part = tuple[dict[str, Any], list[Pixels]]


def main() -> None:
    """Serve calls on the inherited socket."""
    descriptor, memory_bytes = int(sys.argv[1]), int(sys.argv[2])
    _limit(memory_bytes)
    with socket.socket(fileno=descriptor) as wire, suppress(WireError, OSError):
        send(wire, {"ready": True})
        while True:
            call, payload = receive(wire)
            _serve(wire, call, payload)
            if call["op"] != "pictures" or len(payload) > _LARGE_BYTES:
                del payload
                give_back_holes()


def _limit(memory_bytes: int) -> None:
    limit_memory(memory_bytes)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_FILES, _FILES))


def _serve(wire: socket.socket, call: dict[str, Any], payload: bytearray) -> None:
    seconds = math.ceil(call["limit_s"]) + _GRACE_S
    try:
        signal.alarm(seconds)
        for said, frames in _parts(wire, call, payload):
            signal.alarm(seconds)
            send(wire, {"part": said}, [frame.data.cast("B") for frame in frames])
        answer: dict[str, Any] = {"done": True}
    except SessionError as error:
        answer = _failure(error.code, error.message)
        if hasattr(error, "number"):
            answer["number"] = error.number
    except MemoryError:
        answer = _failure("media_too_large", "decoding it takes more memory than it may")
    except (WireError, OSError):
        raise
    except Exception as error:  # a decoder's wrapper that meets what it did not foresee
        answer = _failure("media_error", f"it cannot be decoded ({type(error).__name__})")
        answer["unforeseen"] = f"{type(error).__name__}: {error}"[:500]
    finally:
        signal.alarm(0)
    send(wire, answer)


def _failure(code: str, message: str) -> dict[str, Any]:
    return {"code": code, "message": message}


def _parts(wire: socket.socket, call: dict[str, Any], payload: bytearray) -> Iterator[Part]:
    side, settings = call["side"], ApiSettings(**call["settings"])
    match call["op"]:
        case "pictures":
            yield from _pictures(payload, call["sizes"], side, settings)
        case "piece":
            for stretch in decode_piece(bytes(payload), side, call["fps"], settings):
                yield _part(stretch)
        case "open":
            opener = _opener(wire, call.get("size"))
            yield asdict(open_video(call["uri"], call["fps"], settings, opener)), []
        case "stretch":
            opener = _opener(wire, call.get("size"))
            video = Video(**call["video"])
            yield _part(decode_stretch(video, call["first"], call["end"], side, settings, opener))


def _part(stretch: Stretch) -> Part:
    frames = [stretch.frames] if len(stretch.frames) else []
    return {"times_s": stretch.times_s, "error": stretch.error}, frames


def _pictures(
    payload: bytearray, sizes: list[int], side: int, settings: ApiSettings
) -> Iterator[Part]:
    """In parts; where one cannot be decoded the error has its ``number``."""
    view = memoryview(payload)
    gathered: list[Pixels] = []
    began = time.monotonic()
    bounds = np.cumsum([0, *sizes]).tolist()
    for number, (start, end) in enumerate(pairwise(bounds)):
        try:
            gathered.append(decode_image(bytes(view[start:end]), side, settings))
        except SessionError as error:
            error.number = number  # type: ignore[attr-defined]
            raise
        full = len(gathered) * side * side * 3 >= _MOST_GATHERED_BYTES
        if full or time.monotonic() - began > _MOST_GATHERED_S:
            yield {"pictures": len(gathered)}, gathered
            gathered, began = [], time.monotonic()
    yield {"pictures": len(gathered)}, gathered


def _opener(wire: socket.socket, size: int | None) -> Opener | None:
    """Of bytes that the other side reads for us; None where they are a local file."""
    if size is None:
        return None

    def fetch(start: int, length: int) -> bytes:
        send(wire, {"need": [start, length]})
        answer, data = receive(wire)
        if "kind" in answer:
            raise StorageError(answer["kind"], answer["message"])
        return bytes(data)

    return lambda: RangedReader(size, fetch, name="an object", buffer_bytes=0)


if __name__ == "__main__":
    main()
