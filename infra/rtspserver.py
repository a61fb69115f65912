"""A small RTSP server for tests: one H.264 video over and over, interleaved in the connection.

It speaks what a camera does (RFC 2326: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN; RTP over TCP
alone), at real pace, with Basic authentication if wanted. FFmpeg cuts the video into RTP packets.
"""

from __future__ import annotations

import base64
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import BinaryIO, cast

import av
import numpy as np
from numpy.typing import NDArray

from infra.loopback import LoopbackServer

Draw = Callable[[int], NDArray[np.uint8]]
_SDP = """v=0
o=- 0 0 IN IP4 127.0.0.1
s=test
c=IN IP4 0.0.0.0
t=0 0
m=video 0 RTP/AVP 96
a=rtpmap:96 H264/90000
a=fmtp:96 packetization-mode=1
a=control:track1
"""


class RtspServer(LoopbackServer):
    """Serves pictures ``draw(0), draw(1), ...`` at ``url``; each client sees those drawn now.

    Args:
        draw: the (height, width, 3) RGB picture of a number.
        fps: pictures a second.
        login: ``user:password`` that is asked for.
        stall_after: pictures after which a client gets nothing more, though it stays connected.
        redirect: where every DESCRIBE is sent instead.
        tls: speak ``rtsps`` with its certificate.
    """

    def __init__(
        self,
        draw: Draw,
        *,
        fps: int = 25,
        login: str | None = None,
        stall_after: int | None = None,
        redirect: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__()
        self._tls = tls
        self._draw, self._fps, self._login = draw, fps, login
        self._stall_after, self._redirect = stall_after, redirect
        self._began = time.monotonic()
        #: Methods that were asked for, in order.
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        """Where it is, without a login."""
        scheme = "rtsps" if self._tls else "rtsp"
        return f"{scheme}://localhost:{self.port}/camera"

    def serve(self, client: socket.socket) -> None:
        """Answer a client until it has gone, or said that it goes."""
        if self._tls:
            client = self._tls.wrap_socket(client, server_side=True)
        self._speak(client)

    def _speak(self, client: socket.socket) -> None:
        with client, client.makefile("rb") as lines:
            while line := lines.readline():
                method = line.split()[0].decode()
                headers = dict(_headers(cast(BinaryIO, lines)))
                self.asked.append(method)
                self._answer(client, method, headers)
                if method == "PLAY":
                    self._play(client)
                    return
                if method == "TEARDOWN":
                    return

    def _answer(self, client: socket.socket, method: str, headers: dict[str, str]) -> None:
        status, more, body = "200 OK", "", ""
        wanted = base64.b64encode((self._login or "").encode()).decode()
        if method == "OPTIONS":
            more = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
        elif self._redirect:
            status, more = "302 Found", f"Location: {self._redirect}\r\n"
        elif self._login and headers.get("authorization") != f"Basic {wanted}":
            status, more = "401 Unauthorized", 'WWW-Authenticate: Basic realm="camera"\r\n'
        elif method == "DESCRIBE":
            body = _SDP.replace("\n", "\r\n")
            more = f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n"
        elif method == "SETUP":
            more = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"
        number = headers.get("cseq", "0")
        head = f"RTSP/1.0 {status}\r\nCSeq: {number}\r\nSession: 1;timeout=60\r\n{more}\r\n"
        client.sendall((head + body).encode())

    def _play(self, client: socket.socket) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.bind(("127.0.0.1", 0))
            udp.settimeout(0.5)
            place = f"rtp://127.0.0.1:{udp.getsockname()[1]}?pkt_size=1200"
            gone = threading.Event()
            threading.Thread(target=self._encode, args=(place, gone), daemon=True).start()
            try:
                while not self.ended.is_set():
                    with suppress(TimeoutError):
                        packet = udp.recv(2048)
                        # Of its two ports only that of RTP is ours; reports go to the next one.
                        client.sendall(b"$\0" + len(packet).to_bytes(2, "big") + packet)
            finally:
                gone.set()

    def _encode(self, place: str, gone: threading.Event) -> None:
        """Sends pictures as RTP at real pace until the client is gone."""
        height, width = self._draw(0).shape[:2]
        with av.open(place, "w", format="rtp") as container:
            stream = container.add_stream("libx264", rate=self._fps)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.codec_context.gop_size = self._fps // 2
            stream.codec_context.thread_count = 1
            headers = "repeat-headers=1:scenecut=0"
            stream.options = {
                "preset": "ultrafast", "tune": "zerolatency", "x264-params": headers
            }  # fmt: skip
            begins = time.monotonic()
            first = round((begins - self._began) * self._fps)
            count = 0
            while not (self.ended.is_set() or gone.is_set()) and count != self._stall_after:
                image = np.ascontiguousarray(self._draw(first + count))
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts = count
                container.mux(stream.encode(frame))
                count += 1
                time.sleep(max(0.0, begins + count / self._fps - time.monotonic()))


def _headers(lines: BinaryIO) -> Iterator[tuple[str, str]]:
    while line := lines.readline().strip():
        name, _, value = line.decode().partition(":")
        yield name.strip().lower(), value.strip()
