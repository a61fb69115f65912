"""A stream into sessions on a real replica: seen, asked about, and not ended by its loss."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mod.checkpoint import TINY
from pipelines.cluster import connected
from serve.app import ReplicaPlan, deploy
from serve.directory import directory_handle, directory_name
from serve.handles import replica_handle
from serve.live.items import Question, SessionOptions
from serve.pinned import PinnedSessions
from serve.pulling import ServedSessions
from serve.routes.context import ModelInfo
from serve.sources.addresses import SourceSettings
from serve.streams import RayStreams
from tests.ports import free_ports
from tests.serve.killing import replicas
from tests.serve.live_sources import HttpSource

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long]


async def until(
    streams: RayStreams, reached: Callable[[dict[str, Any]], bool], within_s: float = 120.0
) -> dict[str, Any]:
    deadline = time.monotonic() + within_s
    while True:
        found = await streams.get("door")
        assert found is not None
        if reached(found):
            return found
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.3)


def test_a_stream_goes_on_when_its_replica_is_lost(tmp_path: Path) -> None:
    """Guards against a stream that real sessions refuse, that a question upsets, or that ends with
    the replica its session lived on."""

    async def scenario(directory: str) -> None:
        sessions = PinnedSessions(replica_handle(), directory_handle(directory))
        model = ModelInfo(**await replica_handle().info.remote())
        sources = SourceSettings(allow_private=True)
        streams = RayStreams(
            sessions, ServedSessions(directory), model, str(tmp_path), sources=sources
        )
        with HttpSource() as source:
            url = source.url + "/live.ts"
            options = SessionOptions()
            started = {"url": url, "id": "door", "reconnect": True, "options": options}
            assert (await streams.start(started))["state"] == "starting"
            await until(streams, lambda s: s["frames"] >= 4)
            (receipt,) = await sessions.give("door", [Question("How many cuts?")])
            assert receipt.outcome == "accepted"
            before = await until(streams, lambda s: s["seq"] > receipt.seq)
            (pid,) = replicas().values()
            os.kill(pid, signal.SIGKILL)
            after = await until(streams, lambda s: s["frames"] >= before["frames"] + 8)
            assert (after["state"], after["connections"]) == ("running", 1)
            ended = await streams.stop("door")
            assert ended is not None
            assert ended["state"] == "ended"
        view = await sessions.view("door")
        assert view.frames >= ended["frames"], "what was acknowledged is gone"
        done, number = False, 0
        times: list[float] = []
        while not done or len(times) < ended["frames"]:
            events = await sessions.events("door", number, 60)
            assert events, "frames that were accepted are never seen"
            number = events[-1].number
            done |= any(event.type == "response.done" for event in events)
            times += [e.data["time_s"] for e in events if e.type == "frame.seen"]
        assert times == sorted(set(times))

    (port,) = free_ports(1)
    with connected("local"):
        deploy(ReplicaPlan(TINY, state=str(tmp_path)), http=("127.0.0.1", port))
        asyncio.run(scenario(directory_name(str(tmp_path))))
