"""What HTTP, routing and the durable log cost one frame, beside a POST that does nothing."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
from numpy.typing import NDArray
from ray.serve.handle import DeploymentHandle

from actors.sessionlog import SessionLog
from actors.statestore import Record, StateStore
from bench.harness import ratio
from bench.serve_load import PNG, picture
from mod.checkpoint import TINY, find_checkpoint
from mod.engine.cache import Memory
from mod.engine.engine import Engine
from mod.engine.events import FrameSeen
from mod.loading import load
from mod.world.streams import World
from serve.decoding.calls import decode_pictures
from serve.routes.context import ApiSettings

_WARM = 10
_BLOCKS = 5


class Direct:
    """The engine in this process: what a call costs that nothing stands before."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        model, layout = load(find_checkpoint(TINY))
        self._engine = Engine(model, layout, Memory(model.config, 2**30))
        self._engine.open("direct")

    def push(self, pixels: NDArray[np.uint8]) -> None:
        """Hand in one frame; it waits for the next step."""
        self._engine.push("direct", torch.from_numpy(pixels)[None])

    def until_seen(self) -> None:
        """Step until the frame is seen."""
        while not any(isinstance(event, FrameSeen) for event in self._engine.step()):
            pass

    def drain(self) -> None:
        """Step until nothing waits."""
        while self._engine.busy:
            self._engine.step()


async def measure(
    url: str, haproxy: str, replica: DeploymentHandle, folder: Path, n: int
) -> dict[str, Any]:
    """Times of ``n`` frames, each side in turn on the same picture.

    Args:
        url: of the service, with the empty POST under ``/noop``.
        haproxy: the same behind HAProxy.
        replica: for the time of one hop.
        folder: on the state store's disk, for the time of one durable append.

    Returns:
        ``ratio``: added until the frame is durable and with the engine, over the empty POST, with
        its spread over blocks; ``seen_ratio``: the same until the model has seen it;
        ``haproxy_ratio``: added behind HAProxy over the empty POST that is not; ``ms``: medians of
        all that was timed.
    """
    body = picture(3)
    (sample,) = islice(World(3), 3, 4)
    direct = Direct()
    log = SessionLog(StateStore(str(folder)), "bench")
    # As the gateway calls a session's replica: by a connection of the two processes.
    empty = replica.options(method_name="tokens", _by_reference=False)
    times: dict[str, list[float]] = {}

    async def timed(name: str, call: Awaitable[Any]) -> Any:
        started = time.perf_counter()
        done = await call
        times.setdefault(name, []).append(time.perf_counter() - started)
        return done

    async def empty_post(side: str, client: httpx.AsyncClient) -> None:
        reply = await timed(f"{side}noop", client.post("/noop/frames", content=body, headers=PNG))
        assert reply.status_code == 200, reply.text

    async def acknowledged(side: str, client: httpx.AsyncClient, frames: str) -> None:
        reply = await timed(
            f"{side}acknowledged",
            client.post(f"{frames}?wait=false", content=body, headers=PNG),
        )
        assert reply.status_code == 202, reply.text
        # Nothing waits any more when this is answered.
        await client.post(frames, content=body, headers=PNG)

    async with (
        httpx.AsyncClient(base_url=url, timeout=60) as client,
        httpx.AsyncClient(base_url=haproxy, timeout=60) as fast,
    ):
        frames, fast_frames = [await _opened(each) for each in (client, fast)]
        for number in range(_WARM + n):
            if number == _WARM:
                times.clear()
            await empty_post("", client)
            await empty_post("haproxy_", fast)
            await acknowledged("", client, frames)
            await acknowledged("haproxy_", fast, fast_frames)
            reply = await timed("seen", client.post(frames, content=body, headers=PNG))
            assert reply.status_code == 200, reply.text
            started = time.perf_counter()
            direct.push(sample.frame)
            pushed = time.perf_counter()
            direct.until_seen()
            times.setdefault("direct_push", []).append(pushed - started)
            times.setdefault("direct_seen", []).append(time.perf_counter() - started)
            direct.drain()
            await timed("part_replica_hop", empty.remote([]))
            await timed("part_decode", decode_pictures([body], 96, ApiSettings()))
            record = Record("bench", 1, number, "frame", {}, sample.frame.tobytes())
            await timed("part_durable_append", asyncio.wrap_future(log.append([record])))
        await client.delete(frames.removesuffix("/frames"))
        await fast.delete(fast_frames.removesuffix("/frames"))
    log.close()
    return {
        "ratio": ratio(over(times, "acknowledged", "direct_push", "noop", _BLOCKS)),
        "haproxy_ratio": ratio(over(times, "haproxy_acknowledged", "direct_push", "noop", _BLOCKS)),
        "seen_ratio": ratio(over(times, "seen", "direct_seen", "noop", _BLOCKS)),
        "ms": {name: 1e3 * statistics.median(values) for name, values in times.items()},
        "body_bytes": len(body),
    }


async def _opened(client: httpx.AsyncClient) -> str:
    """Where frames of a new session go."""
    opened = await client.post("/v1/sessions", json={})
    return f"/v1/sessions/{opened.json()['id']}/frames"


def over(
    times: dict[str, list[float]], whole: str, without: str, base: str, blocks: int
) -> list[float]:
    """(median of ``whole`` - median of ``without``) / median of ``base``, of each block of runs."""

    def middles(name: str) -> Sequence[float]:
        return [statistics.median(part) for part in np.array_split(np.array(times[name]), blocks)]

    sides = zip(middles(whole), middles(without), middles(base), strict=True)
    return [float((a - b) / c) for a, b, c in sides]
