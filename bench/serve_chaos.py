"""Live sessions through the deaths of replicas and of the directory, beside an undisturbed run."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import httpx
import ray
from PIL import Image

from bench.serve_load import FPS, PNG
from mod.world.streams import World
from serve.directory import directory_handle, directory_name

#: Seconds into the run at which something is killed.
KILLS = ((3.0, "replica"), (9.0, "directory"), (12.0, "replica"))
#: How far probabilities may lie apart: who shares a step with a session may change last digits.
CLOSE = 1e-3


@dataclass
class Stream:
    """What one session was told.

    Attributes:
        frames, questions: that were acknowledged.
        acknowledged: when each was, on the monotonic clock.
        events: all of them, at the end.
        seq: of the last input, as the service says at the end.
    """

    id: str
    frames: int = 0
    questions: int = 0
    acknowledged: list[float] = field(default_factory=list)
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    seq: int = 0
    retried: int = 0

    @property
    def lost(self) -> int:
        """Acknowledged inputs of which nothing is known at the end."""
        kinds = [kind for kind, _ in self.events]
        unseen = self.frames - kinds.count("frame.seen")
        unanswered = self.questions - kinds.count("response.done")
        return max(0, unseen) + max(0, unanswered)


def same(one: Sequence[tuple[str, Any]], other: Sequence[tuple[str, Any]]) -> bool:
    """Whether two sessions told the same: all but their ids, and last digits of probabilities."""
    if len(one) != len(other):
        return False
    for (kind, a), (other_kind, b) in zip(one, other, strict=True):
        if kind != other_kind or a.keys() != b.keys():
            return False
        for name in a.keys() - {"response"}:
            close = name == "p_silence" and abs(a[name] - b[name]) < CLOSE
            if a[name] != b[name] and not close:
                return False
    return True


async def chaos(url: str, state: str, sessions: int, frames: int) -> dict[str, Any]:
    """``lost_items``, ``mismatches``, and what it took.

    Args:
        state: uri of the state store, whose directory is killed.
        frames: of each session; two questions come with them.
    """
    pictures = [_pictures(100 + number, frames) for number in range(sessions)]
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client:
        calm = await asyncio.gather(*[_drive(client, p, 0.0) for p in pictures])
        killed: list[tuple[str, float, dict[str, int]]] = []
        killing = asyncio.create_task(_kill(client, state, killed))
        hurt = await asyncio.gather(*[_drive(client, p, 1 / FPS) for p in pictures])
        await killing
        epochs = [*[found for _, _, found in killed[1:]], await _epochs(client)]
        recoveries = []
        for (what, when, before), after in zip(killed, epochs, strict=True):
            if what != "replica":
                continue
            for stream in hurt:
                # Moved by this death, and not by another.
                if after.get(stream.id, 0) > before.get(stream.id, 0):
                    recoveries += [t - when for t in stream.acknowledged if t > when][:1]
        for stream in [*calm, *hurt]:
            await client.delete(f"/v1/sessions/{stream.id}")
    return {
        "lost_items": sum(stream.lost for stream in hurt),
        "mismatches": sum(not same(a.events, b.events) for a, b in zip(calm, hurt, strict=True)),
        "acknowledged": sum(stream.frames + stream.questions for stream in hurt),
        "retried": sum(stream.retried for stream in hurt),
        "recovery_s": sorted(recoveries),
        "killed": [what for what, _, _ in killed],
    }


def _pictures(seed: int, n: int) -> list[bytes]:
    found = []
    for sample in islice(World(seed), n):
        out = io.BytesIO()
        Image.fromarray(sample.frame).save(out, "PNG")
        found.append(out.getvalue())
    return found


async def _drive(client: httpx.AsyncClient, pictures: Sequence[bytes], pace_s: float) -> Stream:
    """One session from its opening to its second answer."""
    opened = await client.post("/v1/sessions", json={})
    stream = Stream(opened.json()["id"])
    path, half, seq = f"/v1/sessions/{stream.id}", len(pictures) // 2, 0
    for number, data in enumerate(pictures):
        seq += 1
        await _persist(
            stream,
            client,
            f"{path}/frames?wait=false&seq={seq}",
            {"content": data, "headers": PNG},
        )
        stream.frames += 1
        if number + 1 in (half, len(pictures)):
            seq += 1
            asked = {"input": "How many cuts so far?", "seq": seq}
            await _persist(stream, client, f"{path}/responses", {"json": asked})
            stream.questions += 1
        await asyncio.sleep(pace_s)
    async with client.stream("GET", f"{path}/events?frames=true") as events:
        kind, answered = "", 0
        async for line in events.aiter_lines():
            if line.startswith("event: "):
                kind = line[7:]
            elif line.startswith("data: "):
                stream.events.append((kind, json.loads(line[6:])))
                answered += kind == "response.done"
                if answered == stream.questions:
                    break
    return stream


async def _persist(
    stream: Stream, client: httpx.AsyncClient, path: str, what: dict[str, Any]
) -> None:
    """Until it is acknowledged; the number that it carries keeps it from being applied twice."""
    while True:
        try:
            reply = await client.post(path, **what)
            if reply.status_code < 300:
                stream.acknowledged.append(time.monotonic())
                return
            if reply.status_code < 500:
                raise RuntimeError(reply.text)
        except httpx.TransportError:
            pass
        stream.retried += 1
        await asyncio.sleep(0.2)


async def _kill(
    client: httpx.AsyncClient, state: str, killed: list[tuple[str, float, dict[str, int]]]
) -> None:
    """All of ``KILLS``; notes what, when, and the epoch of each session just before."""
    begun = time.monotonic()
    for at, what in KILLS:
        await asyncio.sleep(max(0.0, begun + at - time.monotonic()))
        before = await _epochs(client)
        killed.append((what, time.monotonic(), before))
        if what == "replica":
            os.kill(await _busiest(client), signal.SIGKILL)
        else:
            ray.kill(directory_handle(directory_name(state)), no_restart=False)


async def _epochs(client: httpx.AsyncClient) -> dict[str, int]:
    reply = await client.get("/v1/sessions")
    return {shown["id"]: shown["epoch"] for shown in reply.json()["data"]}


async def _busiest(client: httpx.AsyncClient) -> int:
    """Process id of the replica that has most sessions: one without any would prove nothing."""
    shown = (await client.get("/v1/sessions")).json()["data"]
    ((name, _),) = Counter(one["replica"] for one in shown if one["replica"]).most_common(1)
    for actor in ray.util.list_named_actors(all_namespaces=True):
        if actor["name"] == f"SERVE_REPLICA::longreel#replica#{name}":
            handle = ray.get_actor(actor["name"], namespace=actor["namespace"])
            pid: int = await handle.__ray_call__.remote(lambda _: os.getpid())
            return pid
    raise RuntimeError(f"there is no replica {name}")
