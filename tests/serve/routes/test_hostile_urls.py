"""Addresses that lead inside, however they are spelled, whatever a name says the second time, and
wherever a server outside sends one: nobody is ever called there.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.hostile.canary import Canary
from infra.rtspserver import RtspServer
from serve import addresses
from serve.addresses import is_public
from serve.live.items import SessionError
from serve.routes.fetching import fetched
from serve.sources import addresses as source_addresses
from serve.sources.addresses import SourceError, SourceSettings
from serve.sources.opening import open_source
from tests.serve.live_sources import HttpSource
from tests.serve.routes.test_fetching import Site, context
from tests.videos import draw

pytestmark = pytest.mark.waits

PUBLIC = "93.184.215.14"

#: Ways to say 127.0.0.1, or another address that is not everybody's.
INSIDE = [
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "2130706433",
    "0x7f000001",
    "0x7f.0.0.1",
    "0177.0.0.1",
    "017700000001",
    "127.0.0.1.",
    "0",
    "0.0.0.0",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "[::1]",
    "[::]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b:1::127.0.0.1]",
    "[2002:7f00:1::]",
    "[fe80::1%25lo]",
    "[fc00::1]",
    "169.254.169.254",
    "[fd00:ec2::254]",
    "100.100.100.200",
    "192.168.0.1",
    "10.0.0.1",
    "172.16.0.1",
    "255.255.255.255",
    "224.0.0.1",
    "user@127.0.0.1",
    "example.org@127.0.0.1",
    "example.org:80@127.0.0.1",
    "example.org%40127.0.0.1",
    "127.0.0.1%2f@example.invalid",
    "127.0.0.1#@example.invalid",
    "127.0.0.1\\@example.invalid",
    "\uff11\uff12\uff17.\uff10.\uff10.\uff11",  # full-width digits
    "127\u3002\u0030\u30020\u30021",  # ideographic full stops
    "\u2460\u2461\u2466.0.0.1",  # circled digits
    "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ",
    "loc\u00adalhost",  # a soft hyphen, which IDNA leaves out
]


@pytest.fixture
def canary() -> Iterator[Canary]:
    with Canary() as listening:
        yield listening


async def _fetch(url: str, store: Path, **settings: Any) -> str:
    async with fetched(url, context(store, **settings)) as uri:
        return uri


def _refused_fetch(url: str, store: Path) -> SessionError:
    with pytest.raises(SessionError) as caught:
        asyncio.run(_fetch(url, store, fetch_timeout_s=5))
    assert caught.value.code in ("url_not_allowed", "url_unreachable")
    return caught.value


@pytest.mark.parametrize("host", INSIDE)
def test_no_spelling_leads_inside(host: str, canary: Canary, tmp_path: Path) -> None:
    """Guards addresses inside against every way to write them, for fetched media and sources."""
    for scheme in ("http", "https"):
        _refused_fetch(f"{scheme}://{host}:{canary.port}/x.mp4", tmp_path)
    for scheme in ("http", "https", "rtsp", "rtsps"):
        with pytest.raises(SourceError):
            open_source(f"{scheme}://{host}:{canary.port}/x", SourceSettings(open_s=5))
    assert canary.hits == []


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "FILE:///etc/passwd",
        "ftp://127.0.0.1:{port}/x",
        "gopher://127.0.0.1:{port}/_x",
        "tcp://127.0.0.1:{port}",
        "concat:http://127.0.0.1:{port}/x",
        "subfile,,start,0,end,9,,:/etc/passwd",
        "http:127.0.0.1:{port}/x",
        "http:/127.0.0.1:{port}/x",
        "http:///127.0.0.1:{port}/x",
        "http:\\\\127.0.0.1:{port}\\x",
        "//127.0.0.1:{port}/x",
        " http://127.0.0.1:{port}/x",
        "http://127.0.0.1:{port}\r\nHost: x/x",
        "http://\t127.0.0.1:{port}/x",
        "http://example.invalid:0/x",
        "http://example.invalid:99999/x",
        "http://example.invalid:-1/x",
        "http://127.0.0.1:0/x",
        "http://",
        "http://:{port}/x",
        "http://[/x",
        "data:text/plain,http://127.0.0.1:{port}/x",
    ],
)
def test_no_other_scheme_and_no_odd_url(url: str, canary: Canary, tmp_path: Path) -> None:
    """Guards against schemes of FFmpeg's own, and against parsers that disagree on a URL."""
    url = url.format(port=canary.port)
    if not url.startswith("data:"):
        _refused_fetch(url, tmp_path)
    with pytest.raises(SourceError):
        open_source(url, SourceSettings(open_s=5))
    assert canary.hits == []


class Rebinding:
    """A name that is public as often as it is looked at, and this machine ever after."""

    def __init__(self, patch: pytest.MonkeyPatch, public_times: int = 1) -> None:
        self.asked = 0
        self._public_times, self._system = public_times, socket.getaddrinfo
        patch.setattr(socket, "getaddrinfo", self._look_up)

    def _look_up(self, host: Any, port: Any, *args: Any, **options: Any) -> list[Any]:
        if host not in ("rebinding.example", b"rebinding.example"):
            return self._system(host, port, *args, **options)
        self.asked += 1
        address = PUBLIC if self.asked <= self._public_times else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, int(port or 0)))]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_fetch_goes_where_it_was_checked(
    scheme: str, canary: Canary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against a name server that answers anew between the check and the connection."""
    name = Rebinding(monkeypatch)
    _refused_fetch(f"{scheme}://rebinding.example:{canary.port}/x.mp4", tmp_path)
    assert name.asked == 1
    # The second time it says where it means to lead.
    error = _refused_fetch(f"{scheme}://rebinding.example:{canary.port}/x.mp4", tmp_path)
    assert error.code == "url_not_allowed"
    assert canary.hits == []


@pytest.mark.parametrize(
    ("scheme", "checks"), [("http", 2), ("https", 2), ("rtsp", 1), ("rtsps", 1)]
)
def test_a_source_goes_where_it_was_checked(
    scheme: str, checks: int, canary: Canary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for fetches; a camera is opened by number as well, however often it breaks off."""
    name = Rebinding(monkeypatch, checks)
    url = f"{scheme}://rebinding.example:{canary.port}/x"
    with pytest.raises(SourceError):
        open_source(url, SourceSettings(open_s=0.5, read_s=0.5))
    assert name.asked == checks
    with pytest.raises(SourceError, match="not a public address"):
        open_source(url, SourceSettings(open_s=0.5, read_s=0.5))
    assert canary.hits == []


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """127.0.0.1 counts as public for a test, and nothing else inside does."""

    def judge(address: str) -> bool:
        return address == "127.0.0.1" or is_public(address)

    monkeypatch.setattr(addresses, "is_public", judge)
    monkeypatch.setattr(source_addresses, "is_public", judge)


AWAY = ["http://[::1]:{port}/x", "http://127.0.0.2:{port}/x", "file:///etc/passwd",
        "rtsp://127.0.0.2:{port}/x", "ftp://127.0.0.2:{port}/x", "//127.0.0.2:{port}/x",
        "http://2130706434:{port}/x"]  # fmt: skip


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize("away", AWAY)
def test_a_redirect_leads_nowhere_inside(away: str, tmp_path: Path) -> None:
    """Guards against a server outside that sends the service in."""
    # On every address of loopback, so that a call at any of them is seen.
    with socket.create_server(("0.0.0.0", 0)) as listening:
        port = listening.getsockname()[1]
        listening.settimeout(0)
        target = away.format(port=port)
        site = Site()
        try:
            _refused_fetch(site.url(f"/to?{target}"), tmp_path)
            assert len(site.seen) == 1
        finally:
            site.server.shutdown()
            site.server.server_close()
        with HttpSource() as source, pytest.raises(SourceError):
            open_source(f"{source.url}/away?{target}", SourceSettings(open_s=2))
        with RtspServer(draw, redirect=target) as camera, pytest.raises(SourceError):
            open_source(camera.url.replace("localhost", "127.0.0.1"), SourceSettings(open_s=2))
        with pytest.raises(BlockingIOError):
            listening.accept()


NAMED = ["http://127.0.0.2:{port}/x.ts", "file:///etc/passwd", "tcp://127.0.0.2:{port}",
         "concat:http://127.0.0.2:{port}/x"]  # fmt: skip


@pytest.mark.slow
@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize("away", NAMED)
def test_a_playlist_of_a_source_leads_nowhere_inside(away: str, tmp_path: Path) -> None:
    """Guards against a playlist outside that names what lies inside, a key or a part."""
    with socket.create_server(("0.0.0.0", 0)) as listening:
        listening.settimeout(0)
        target = away.format(port=listening.getsockname()[1])
        key = f'#EXT-X-KEY:METHOD=AES-128,URI="{target}"\n'
        lists = {
            "parts.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{target}\n",
            "key.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n{key}#EXTINF:2,\n{target}\n",
            "master.m3u8": f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{target}\n",
            "list.ffconcat": f"ffconcat version 1.0\nfile '{target}'\n",
        }
        for name, text in lists.items():
            (tmp_path / name).write_text(text)
        with HttpSource(tmp_path) as source:
            for name in lists:
                with pytest.raises(SourceError):
                    open_source(f"{source.url}/{name}", SourceSettings(open_s=0.5, read_s=0.5))
        with pytest.raises(BlockingIOError):
            listening.accept()
