"""Clients that vanish: session and replica go on."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
import websockets

from tests.serve.killing import replicas
from tests.serve.scripts import Ask, Push, film, script
from tests.serve.survival import live
from tests.serve.survivors import (
    FRAMES,
    Service,
    owner,
)
from tests.serve.transcripts import Event, Follower, assert_same

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long]
PNG = {"content-type": "image/png"}


def test_clients_that_vanish_leave_nothing_broken(
    service: Service, calm: list[list[Event]]
) -> None:
    """Guards session and replica against clients cut off mid-stream, mid-answer and mid-frame."""

    async def run() -> None:
        async with live(service.address, ["left"]) as sessions:
            (client,) = sessions.clients
            before = await asyncio.to_thread(replicas)
            held = await owner(client)
            url = service.address.replace("http", "ws") + f"{client.path}/stream"
            steps = script(2, FRAMES)
            for step in steps:
                path = "responses" if isinstance(step, Ask) else "frames"
                content: dict[str, Any] = {}
                if isinstance(step, Ask):
                    content = {"json": {"input": step.text, "seq": step.seq, "stream": True}}
                else:
                    content = {
                        "files": [("frames", ("f.png", p, "image/png")) for p in step.pictures],
                        "data": {"seq": str(step.seq), "times": json.dumps(step.times)},
                    }
                # Whoever asked goes before the reply does, or in the middle of it.
                try:
                    async with asyncio.timeout(0.01 * (step.seq % 6)):
                        gone = sessions.http.stream("POST", f"{client.path}/{path}", **content)
                        async with gone as reply:
                            async for _ in reply.aiter_raw():
                                pass
                except (TimeoutError, httpx.TransportError):
                    pass
                async with websockets.connect(url, max_size=None) as socket:
                    await socket.send(json.dumps({"type": "frame", "seq": 1, "time_s": 0.0}))
                    if step.seq % 2:
                        await socket.send(film(2, FRAMES)[0])
                    socket.transport.abort()
                partial = asyncio.create_task(Follower(sessions.http, client.session).follow())
                await asyncio.sleep(0.02)
                partial.cancel()
                if isinstance(step, Ask):
                    await client.ask(replace(step, stream=False))
                else:
                    await client.push(step)
            assert await owner(client) == held
            (told,) = await sessions.transcripts()
            # Nor may who vanishes cancel what it asked: others listen.
            assert_same(told, calm[2])
            assert await asyncio.to_thread(replicas) == before
            await sessions.end()

    asyncio.run(run())


def test_pushes_cut_off_at_any_moment_block_nobody(service: Service) -> None:
    """Guards the log that a replica's sessions share: it goes on after callers that gave up."""

    async def run() -> None:
        rng = np.random.default_rng(7)
        names = [f"cut-off-{n}" for n in range(4)]
        async with live(service.address, names) as sessions:
            for n in range(40):
                for client in sessions.clients:
                    seen = {"seq": n + 1, "time_s": n / 2}
                    try:
                        async with asyncio.timeout(float(rng.uniform(0, 0.08))):
                            await sessions.http.post(
                                f"{client.path}/frames",
                                params=seen,
                                content=film(4, 40)[n],
                                headers=PNG,
                            )
                    except (TimeoutError, httpx.TransportError):
                        pass
                for client in sessions.clients:
                    await client.push(Push(n + 1, (film(4, 40)[n],), (n / 2,)))
            told = await sessions.transcripts()
            for events in told:
                assert_same(events, told[0])
            await sessions.end()

    asyncio.run(run())
