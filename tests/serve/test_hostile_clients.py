"""Clients that vanish, and clients that send what is no frame and no question: session and
replica go on.
"""

from __future__ import annotations

import asyncio
import io
import json
import struct
import zlib
from typing import Any

import pytest
import websockets
from PIL import Image

from tests.serve.killing import replicas
from tests.serve.scripts import Ask, Push, film, script
from tests.serve.survival import Client, live
from tests.serve.survivors import (
    FRAMES,
    Service,
    owner,
)
from tests.serve.transcripts import REPLY_S, Event, assert_same

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long]
PNG = {"content-type": "image/png"}
JSON = {"content-type": "application/json"}


def _bomb(side: int) -> bytes:
    """A PNG of so many black pixels in very few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    packer = zlib.compressobj(9)
    row = b"\0" * (side // 8 + 1)
    body = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


def _odd(mode: str, size: tuple[int, int]) -> bytes:
    data = io.BytesIO()
    Image.new(mode, size).save(data, "PNG")
    return data.getvalue()


def test_bad_items_leave_session_and_replica_healthy(
    service: Service, calm: list[list[Event]]
) -> None:
    """Guards against a client that takes a session or a replica with it by what it sends."""

    async def run() -> None:
        async with live(service.address, ["abused"]) as sessions:
            (client,) = sessions.clients
            http = sessions.http
            before = await asyncio.to_thread(replicas)
            held = await owner(client)
            good = film(0, 1)[0]
            frames, responses = f"{client.path}/frames", f"{client.path}/responses"
            bad: list[tuple[str, dict[str, Any]]] = [
                (frames, {"content": _bomb(30_000), "headers": PNG}),
                (frames, {"content": good[: len(good) // 2], "headers": PNG}),
                (frames, {"content": b"", "headers": PNG}),
                (frames, {"content": b"\x89PNG\r\n\x1a\n" + bytes(1000), "headers": PNG}),
                (frames, {"content": bytes(40 << 20), "headers": {"content-type": "video/mp4"}}),
                (frames, {"content": good, "headers": PNG, "params": {"seq": 99}}),
                (frames, {"content": good, "headers": PNG, "params": {"seq": 2**70}}),
                (frames, {"content": good, "headers": PNG, "params": {"seq": -1}}),
                (frames, {"content": good, "headers": PNG, "params": {"time_s": "nan"}}),
                (frames, {"content": good, "headers": PNG, "params": {"time_s": "-5"}}),
                (frames, {"files": [("frames", ("f", good))], "data": {"times": "[[1]]"}}),
                (frames, {"json": [1, 2]}),
                (responses, {"json": {"input": 5}}),
                (responses, {"json": {"input": "x" * 3_000_000}}),
                (responses, {"json": {"input": "x", "max_output_tokens": 10**30}}),
                (responses, {"json": {"input": "x", "max_output_tokens": -1}}),
                (responses, {"content": b'{"input": "\xff\xfe"}'}),
                (responses, {"content": b"[" * 100_000}),
                (responses, {"json": {"input": "What?", "seq": 99}}),
                (f"{client.path}/responses/resp-none/cancel", {}),
            ]
            for n, step in enumerate(steps := script(0, FRAMES)):
                for path, content in bad[n::2] if n < 2 else []:
                    reply = await http.post(path, **content)
                    shown = {k: str(v)[:60] for k, v in content.items()}
                    if "cancel" in path:
                        assert reply.status_code in (200, 404), (path, reply.text)
                        continue
                    assert 400 <= reply.status_code < 500, (path, shown, reply.text[:300])
                    assert reply.json()["error"]["message"], (path, shown)
                if isinstance(step, Ask):
                    await client.ask(step)
                else:
                    await client.push(step)
            await _abuse_socket(service.address, client)
            view = await client.view()
            last = steps[-1]
            assert isinstance(last, Push)
            assert view["seq"] == last.seq + len(last.pictures) - 1
            (told,) = await sessions.transcripts()
            assert_same(told, calm[0])
            # What comes late is refused by a receipt, and odd pictures are pictures.
            late = await client.push(Push(view["seq"] + 1, (good,), (0.0,)))
            assert late["receipts"][0]["outcome"] == "dropped"
            assert late["receipts"][0]["reason"] == "late"
            sizes = [("L", (1, 1)), ("RGBA", (1, 500)), ("P", (500, 1)), ("I;16", (64, 64))]
            odd = tuple(_odd(mode, size) for mode, size in sizes)
            times = tuple(100.0 + n for n in range(len(odd)))
            told_odd = await client.push(Push(view["seq"] + 2, odd, times))
            assert [r["outcome"] for r in told_odd["receipts"]] == ["accepted"] * len(odd)
            for text in ("\0\ud83d\ude00 \u202e", " ", "?" * 2_000):
                number = (await client.view())["seq"] + 1
                asked = json.dumps({"input": text, "seq": number})
                reply = await http.post(responses, content=asked, headers=JSON)
                assert reply.status_code < 500, reply.text
            assert await owner(client) == held
            assert await asyncio.to_thread(replicas) == before
            await sessions.end()

    asyncio.run(run())


async def _abuse_socket(address: str, client: Client) -> None:
    """Send what is no message; each gets one error, and the connection lives on."""
    url = address.replace("http", "ws") + f"{client.path}/stream"
    last = (await client.view())["last_event"]
    async with websockets.connect(f"{url}?after={last}", max_size=None) as socket:
        assert json.loads(await socket.recv())["type"] == "session.created"
        bad: list[str | bytes] = ["", "{", "[]", "null", '{"type": 5}', '{"type": "nothing"}']
        bad += ['{"type": "response.create"}', '{"type": "response.create", "input": 7}']
        bad += ['{"type": "frame", "seq": "x"}', '{"type": "frame", "time_s": -1}', "[" * 50_000]
        bad += [b"", b"no picture", film(0, 1)[0][:300], _bomb(30_000)]
        for message in bad:
            await socket.send(message)
            said = json.loads(await asyncio.wait_for(socket.recv(), REPLY_S))
            assert said["type"] == "error", (message[:50], said)
            assert said["code"], (message[:50], said)
            assert said["message"], (message[:50], said)
        await socket.send('{"type": "ping"}')
        assert json.loads(await asyncio.wait_for(socket.recv(), REPLY_S))["type"] == "pong"
