"""Everything hostile at once against a running service, through its HTTP API."""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from bench.hostile_sockets import abuse_sockets, hold_slowly
from infra.hostile.canary import Canary
from infra.hostile.mutations import Hostile
from infra.hostile.references import references
from infra.hostile.seeds import seeds

_FLOOD_BYTES = 16 * 2**20
_KINDS = ("image/jpeg", "video/mp4", "application/octet-stream")
#: Spellings of this machine.
_HOSTS = ("127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1", "127.1",
          "0.0.0.0", "[::]", "user@127.0.0.1", "127.0.0.1.", "[64:ff9b::7f00:1]")  # fmt: skip


@dataclass
class Assault:
    """What was sent, how it was answered, and what must not have been.

    Attributes:
        wrong: answers that are no 2xx and no 4xx.
        sockets: how each abuse of a WebSocket ended.
        private_hits: connections to an address inside.
        slow_held: slow connections that the server let be.
    """

    requests: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    sockets: dict[str, str] = field(default_factory=dict)
    private_hits: int = 0
    urls: int = 0
    slow_held: int = 0

    def shown(self) -> dict[str, Any]:
        """As the bench prints it."""
        return {
            "requests": self.requests,
            "statuses": {str(k): v for k, v in sorted(self.statuses.items())},
            "codes": dict(self.codes.most_common()),
            "neither_2xx_nor_4xx": self.wrong,
            "urls_that_lead_inside": self.urls,
            "private_addresses_fetched": self.private_hits,
            "sockets": self.sockets,
            "slow_connections_held": self.slow_held,
        }


async def assault(
    address: str, files: Sequence[Hostile], flood_mib: int = 96, slow: int = 20
) -> Assault:
    """``files`` as frames and in chats, URLs that lead inside, bodies that are too much, broken
    sockets, slow clients.
    """
    found = Assault()
    with Canary() as canary:
        async with httpx.AsyncClient(base_url=address, timeout=120) as http:
            opened = await http.post("/v1/sessions", json={"id": "assaulted"})
            opened.raise_for_status()
            done = asyncio.Event()
            slowly = asyncio.create_task(hold_slowly(address, slow, done))
            at = f"127.0.0.1:{canary.port}"
            named = list(references([f"http://{at}/x.ts", f"tcp://{at}", "/etc/passwd"], seeds()))
            await asyncio.gather(
                _frames(http, [*files, *named], found),
                _urls(http, canary.port, named, found),
                _bodies(http, found),
                _sockets(address, flood_mib, found),
            )
            done.set()
            found.slow_held = await slowly
            await http.delete("/v1/sessions/assaulted")
        found.private_hits = len(canary.hits)
    return found


async def _frames(http: httpx.AsyncClient, files: Sequence[Hostile], found: Assault) -> None:
    path = "/v1/sessions/assaulted/frames"
    for number, file in enumerate(files):
        kind = _KINDS[number % len(_KINDS)]
        reply = await http.post(
            path, params={"wait": False}, content=file.data, headers={"content-type": kind}
        )
        _note(file.name, reply, found)


async def _urls(
    http: httpx.AsyncClient, port: int, named: Sequence[Hostile], found: Assault
) -> None:
    urls = [f"{scheme}://{host}:{port}/x" for host in _HOSTS for scheme in ("http", "https")]
    urls += ["file:///etc/passwd", f"tcp://127.0.0.1:{port}", f"concat:http://127.0.0.1:{port}/x"]
    for url in urls:
        await _chat(http, url, found)
        streamed = await http.post("/v1/streams", json={"url": url})
        _note(f"a stream of {url}", streamed, found)
        found.urls += 2
    for url in (f"rtsp://127.0.0.1:{port}/x", f"rtsps://localhost:{port}/x"):
        _note(f"a stream of {url}", await http.post("/v1/streams", json={"url": url}), found)
        found.urls += 1
    # Those that hold pictures of their own show these, rightly.
    for file in [file for file in named if not file.name.startswith("mov")][::10]:
        await _chat(http, "data:;base64," + base64.b64encode(file.data).decode(), found)


async def _bodies(http: httpx.AsyncClient, found: Assault) -> None:
    """JSON that takes far more memory than bytes; text that a replica would read for minutes."""
    path, kind = "/v1/chat/completions", {"content-type": "application/json"}
    head = b'{"model": "longreel-tiny", "messages": ['
    many = {"lists": b"[]," * (_FLOOD_BYTES // 3), "objects": b'{"a":1},' * (_FLOOD_BYTES // 8)}
    for name, values in many.items():
        reply = await http.post(path, content=head + values, headers=kind)
        _note(f"a chat of many {name}", reply, found)
    for role in ("user", "system"):
        said = [{"role": role, "content": "a ball. " * (_FLOOD_BYTES // 8)}]
        said.append({"role": "user", "content": "Why?"})
        wanted = {"model": "longreel-tiny", "messages": said}
        _note(f"a chat of a long {role} message", await http.post(path, json=wanted), found)


async def _chat(http: httpx.AsyncClient, url: str, found: Assault) -> None:
    part = {"type": "video_url", "video_url": {"url": url}}
    wanted = {"model": "longreel-tiny", "messages": [{"role": "user", "content": [part]}]}
    reply = await http.post("/v1/chat/completions", json=wanted)
    _note(f"a chat about {url[:80]}", reply, found)
    if reply.status_code < 400:
        found.wrong.append(f"a chat about {url[:80]} was answered")


async def _sockets(address: str, flood_mib: int, found: Assault) -> None:
    found.sockets = await abuse_sockets(address, "/v1/sessions/assaulted", flood_mib)


def _note(name: str, reply: httpx.Response, found: Assault) -> None:
    found.requests += 1
    found.statuses[reply.status_code] += 1
    if reply.status_code >= 500 or reply.status_code < 200:
        found.wrong.append(f"{reply.status_code} for {name}: {reply.text[:200]}")
    if reply.status_code >= 400:
        found.codes[str(reply.json()["error"]["code"])] += 1
