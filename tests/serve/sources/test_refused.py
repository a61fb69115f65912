"""Sources that are refused: places, redirects, playlists, certificates."""

from __future__ import annotations

import asyncio
import gzip
import shutil
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from infra.rtspserver import RtspServer
from serve.sources.addresses import SourceSettings
from serve.sources.httpbody import HttpBody
from tests.serve.live_sources import FPS, HttpSource, moving_video
from tests.serve.sources.following import following
from tests.videos import draw

pytestmark = pytest.mark.waits


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("openssl"), reason="needs the openssl command")
def test_rtsps_needs_a_certificate_of_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against a login that is sent to whoever answers, and TLS that does not work at all."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    made += ["-keyout", str(key), "-out", str(certificate), "-subj", "/CN=localhost"]
    subprocess.run([*made, "-addext", "subjectAltName=DNS:localhost"], check=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)

    async def scenario() -> None:
        with RtspServer(draw, tls=context, fps=FPS) as camera:
            async with following(camera.url) as found:
                await found.until(lambda: found.record.over)
                assert found.record.state == "failed"
                assert "cannot be trusted" in (found.record.error or "")
            assert camera.asked == []
            monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
            async with following(camera.url) as found:
                await found.frames(4)
            async with following(camera.url.replace("localhost", "127.0.0.1")) as found:
                await found.until(lambda: found.record.over)
                assert "cannot be trusted" in (found.record.error or "")

    asyncio.run(scenario())


@pytest.mark.parametrize("inside", ["rtsp://127.0.0.1:1/x", "http://127.0.0.1:1/x"])
def test_an_rtsp_redirect_goes_nowhere(inside: str) -> None:
    """Guards against a camera outside that sends the service to an address inside."""

    async def scenario() -> None:
        with RtspServer(draw, redirect=inside) as camera:
            async with following(camera.url) as found:
                await found.until(lambda: found.record.over)
                assert found.record.state == "failed"
                assert "redirects" in (found.record.error or "")

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/x",
        "http://localhost:1/x",
        "http://[::1]:1/x",
        "http://[::ffff:127.0.0.1]:1/x",
        "http://10.1.2.3/x",
        "http://169.254.169.254/latest/meta-data",
        "http://100.64.0.1/x",
        "rtsp://127.0.0.1/x",
        "rtsp://0.0.0.0/x",
        "rtsp://224.0.0.1/x",
        "file:///etc/passwd",
        "concat:/etc/passwd",
        "/etc/passwd",
        "ftp://example.org/x",
        "rtmp://example.org/x",
        "s3://others/x.mp4",
        "http:///x",
        "http://a b/x",
        "http://host:99999/x",
    ],
)
def test_places_that_sources_may_not_be(url: str) -> None:
    """Guards against reading files, or addresses that only the service can reach."""

    async def scenario() -> None:
        async with following(url, reconnect=True, settings=SourceSettings()) as found:
            await found.until(lambda: found.record.over, 5)
            assert found.record.state == "failed"

    asyncio.run(scenario())


@pytest.mark.slow
def test_a_redirect_is_checked_as_the_first_place_is(tmp_path: Path) -> None:
    """Guards against a redirect to a file, and credentials that travel to another host."""

    async def scenario() -> None:
        with HttpSource() as source, HttpSource() as other:
            for target in ("file:///etc/passwd", "rtsp://127.0.0.1:1/x"):
                async with following(f"{source.url}/away?{target}") as found:
                    await found.until(lambda: found.record.over)
                    assert found.record.state == "failed"
            guarded = source.url.replace("//", "//user:secret@")
            async with following(f"{guarded}/guarded.ts") as found:
                await found.frames(1)
            async with following(f"{guarded}/away?{source.url}/guarded.ts") as found:
                await found.frames(1)
            async with following(f"{guarded}/away?{other.url}/guarded.ts") as found:
                await found.until(lambda: found.record.over)
                assert "401" in (found.record.error or "")

    asyncio.run(scenario())


def test_a_playlist_names_no_files(tmp_path: Path) -> None:
    """Guards against FFmpeg opening what a hostile playlist names."""
    secret = moving_video(tmp_path / "secret.ts", 2)
    (tmp_path / "list.m3u8").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nfile://{secret}\n#EXT-X-ENDLIST\n"
    )
    (tmp_path / "list.ffconcat").write_text(f"ffconcat version 1.0\nfile '{secret}'\n")

    async def scenario() -> None:
        with HttpSource(tmp_path) as source:
            for name in ("list.m3u8", "list.ffconcat"):
                async with following(f"{source.url}/{name}", reconnect=True) as found:
                    await found.until(lambda: found.record.over)
                    assert found.record.state == "failed"
                    assert found.sessions.given == []

    asyncio.run(scenario())


class _Packed(BaseHTTPRequestHandler):
    """Sends a small body that unpacks to a large one, though nobody asked for that."""

    body = gzip.compress(bytes(2**26))

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.mark.slow
def test_nothing_is_unpacked_on_the_way() -> None:
    """Guards memory against a body that unpacks to a thousand times its bytes."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Packed) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/x.ts"
        body = HttpBody(url, SourceSettings(allow_private=True))
        parts = list(iter(lambda: body.read(2**20), b""))
        assert b"".join(parts) == _Packed.body
        server.shutdown()


def test_what_is_no_video_fails_at_once(tmp_path: Path) -> None:
    """Guards against asking for a text page again and again."""
    (tmp_path / "page.html").write_text("<html>no video</html>" * 50)
    (tmp_path / "one.jpg").write_bytes(b"")

    async def scenario() -> None:
        with HttpSource(tmp_path) as source:
            async with following(f"{source.url}/page.html", reconnect=True) as found:
                await found.until(lambda: found.record.over)
                assert (found.record.state, found.record.error) == ("failed", "this is no video")

    asyncio.run(scenario())
