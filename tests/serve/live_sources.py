"""HTTP servers on loopback that behave as cameras, streams and file servers do, good and bad."""

from __future__ import annotations

import io
import re
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from infra.loopback import LoopbackServer
from tests.videos import BITS, draw, x264

FPS = 25


class HttpSource(LoopbackServer):
    """Answers every path by what it is called; pictures carry the number of their moment.

    ``/live.ts`` is an endless transport stream and ``/mjpeg`` an endless multipart of JPEGs, both
    at real pace; ``/stall.ts`` stops after four seconds with the connection open; ``/silent``
    never answers; ``/away?URL`` redirects; ``/guarded.ts`` wants ``user:secret``; anything else is
    a file of ``folder``, with ranges.
    """

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__()
        self._folder = folder
        self.began = time.time()
        #: Request lines and ranges, in order.
        self.asked: list[str] = []
        self.refuses = False
        self.url = f"http://127.0.0.1:{self.port}"

    def number(self) -> int:
        """Of the picture that is shown now."""
        return int((time.time() - self.began) * FPS) % 2**BITS

    def drawn_at(self, number: int) -> float:
        """When a picture was shown, in seconds since 1970."""
        return self.began + number / FPS

    def serve(self, client: socket.socket) -> None:
        """Answer one request, as its path says."""
        with suppress(av.FFmpegError), client, client.makefile("rb") as lines:
            words = lines.readline().decode().split()
            headers = {}
            while line := lines.readline().strip():
                name, _, value = line.decode().partition(":")
                headers[name.lower()] = value.strip()
            path, _, query = words[1].partition("?")
            self.asked.append(f"{path} {headers.get('range', '')}".strip())
            if self.refuses:
                client.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
            elif path == "/silent":
                self.ended.wait(60)
            elif path == "/away":
                client.sendall(f"HTTP/1.1 302 Found\r\nLocation: {query}\r\n\r\n".encode())
            elif path == "/guarded.ts" and headers.get("authorization") != "Basic dXNlcjpzZWNyZXQ=":
                client.sendall(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
            elif path.endswith(".ts") and self._folder is None:
                client.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: video/mp2t\r\n\r\n")
                self._transport_stream(client, 100 if path == "/stall.ts" else None)
            elif path == "/mjpeg":
                self._jpegs(client)
            else:
                self._file(client, path, headers.get("range", ""))

    def _numbers(self) -> Iterator[int]:
        """The number of each picture at its moment."""
        while not self.ended.is_set():
            number = self.number()
            yield number
            next_s = self.drawn_at(number + 1) - time.time()
            self.ended.wait(max(0.0, next_s))

    def _transport_stream(self, client: socket.socket, most: int | None) -> None:
        file = _Sender(client)
        with av.open(file, "w", format="mpegts", options={"flush_packets": "1"}) as container:
            stream: Any = container.add_stream("libx264", rate=FPS)
            stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
            stream.codec_context.gop_size = 5
            stream.codec_context.thread_count = 1
            stream.options = {"preset": "ultrafast", "tune": "zerolatency"}
            first = None
            for count, number in enumerate(self._numbers()):
                first = number if first is None else first
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(draw(number)), "rgb24")
                frame.pts = number - first
                container.mux(stream.encode(frame))
                if count == most:
                    self.ended.wait(60)

    def _jpegs(self, client: socket.socket) -> None:
        kind = "multipart/x-mixed-replace; boundary=part"
        client.sendall(f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n\r\n".encode())
        for number in self._numbers():
            # A camera of 5 pictures a second: MJPEG has no times that would say so.
            if number % 5 == 0:
                buffer = io.BytesIO()
                Image.fromarray(draw(number)).save(buffer, "JPEG", quality=90)
                jpeg = buffer.getvalue()
                head = f"--part\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                client.sendall(head.encode() + jpeg + b"\r\n")

    def _file(self, client: socket.socket, path: str, wanted: str) -> None:
        file = (self._folder or Path("/nowhere")) / path.lstrip("/")
        if not file.is_file():
            client.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            return
        data = file.read_bytes()
        start = int(match[1]) if (match := re.match(r"bytes=(\d+)-", wanted)) else 0
        place = f"Content-Range: bytes {start}-{len(data) - 1}/{len(data)}"
        client.sendall(f"HTTP/1.1 206 Partial Content\r\n{place}\r\n\r\n".encode() + data[start:])


class _Sender:
    """What FFmpeg writes to a client."""

    def __init__(self, client: socket.socket) -> None:
        self._client = client

    def write(self, data: bytes) -> int:
        self._client.sendall(data)
        return len(data)


def moving_video(path: Path, seconds: float) -> Path:
    """A recording whose pictures carry their numbers."""
    from tests.videos import write_video

    write_video(path, n_frames=round(seconds * FPS), options=x264())
    return path
