"""Streams over HTTP with an actor each: what clients see, what dies and goes on, what is secret."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray

from infra.rtspserver import RtspServer
from pipelines.cluster import connected
from serve.directory import NAMESPACE
from serve.live.items import Receipt
from serve.routes.app import build
from serve.routes.context import ApiSettings, Context, ModelInfo
from serve.sources.addresses import SourceSettings
from serve.streams import RayStreams
from tests.serve.live_sources import HttpSource
from tests.serve.remote_sessions import Holder, RemoteSessions
from tests.videos import draw

pytestmark = [pytest.mark.ray, pytest.mark.slow]

MODEL = ModelInfo("tiny", "1", 64, 5.0, 1.0, "none", 9, True, "Summarize.")
PATIENT = SourceSettings(allow_private=True, open_s=60, read_s=60, first_pause_s=0.2)


@pytest.fixture(scope="module")
def holder() -> Iterator[str]:
    """The name of the actor with the sessions."""
    with connected("local"):
        actor = ray.remote(Holder).options(name="holder", namespace="tests", num_cpus=0).remote()
        ray.get(actor.given.remote())
        yield "holder"


@dataclass
class Api:
    """A client, and what the sessions were given."""

    http: httpx.AsyncClient
    store: Path

    async def start(self, **wanted: Any) -> dict[str, Any]:
        answer = await self.http.post("/v1/streams", json=wanted)
        assert answer.status_code == 201, answer.text
        return answer.json()

    async def get(self, name: str) -> dict[str, Any]:
        answer = await self.http.get(f"/v1/streams/{name}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def until(
        self, name: str, reached: Callable[[dict[str, Any]], bool], within_s: float = 90.0
    ) -> dict[str, Any]:
        deadline = time.monotonic() + within_s
        while not reached(found := await self.get(name)):
            assert time.monotonic() < deadline, found
            await asyncio.sleep(0.1)
        return found


async def given() -> list[tuple[float, int, Receipt]]:
    return await ray.get_actor("holder", "tests").given.remote()


@asynccontextmanager
async def api(store: Path, most: int = 32) -> AsyncIterator[Api]:
    sessions = RemoteSessions("holder")
    streams = RayStreams(
        sessions, lambda: RemoteSessions("holder"), MODEL, str(store), sources=PATIENT, most=most
    )
    settings = ApiSettings(allow_private_urls=True)
    context = Context(sessions, None, MODEL, str(store), settings, streams=streams)  # type: ignore[arg-type]
    transport = httpx.ASGITransport(build(context))
    async with httpx.AsyncClient(transport=transport, base_url="http://api", timeout=30) as http:
        yield Api(http, store)
        for each in (await http.get("/v1/streams")).json()["data"]:
            await http.delete(f"/v1/streams/{each['id']}")


def puller_pid() -> int:
    """The process that pulls the only stream there is."""
    deadline = time.monotonic() + 20
    while True:  # one that was told to end may still be there
        found = [int(e.name) for e in Path("/proc").iterdir() if e.name.isdigit() and _pulls(e)]
        if len(found) == 1:
            return found[0]
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


def _pulls(entry: Path) -> bool:
    return b"ray::Puller" in _title(entry)


def _title(entry: Path) -> bytes:
    try:
        return (entry / "cmdline").read_bytes()
    except OSError:
        return b""


def test_a_stream_from_its_start_to_its_end(holder: str, tmp_path: Path) -> None:
    """Guards against routes that only look right, and a login that shows anywhere."""

    async def scenario() -> None:
        with RtspServer(draw, login="user:hush") as camera:
            async with api(tmp_path) as service:
                url = camera.url.replace("//", "//user:hush@") + "?token=hush"
                made = await service.start(url=url, fps=5, id="camera", instructions="Watch.")
                assert made["object"] == "stream"
                assert (made["id"], made["session"], made["state"]) == (
                    "camera", "camera", "starting"
                )  # fmt: skip
                assert made["url"] == camera.url
                found = await service.until("camera", lambda s: s["frames"] >= 5)
                assert found["state"] == "running"
                listed = (await service.http.get("/v1/streams")).json()
                assert [each["id"] for each in listed["data"]] == ["camera"]
                session = (await service.http.get("/v1/sessions/camera")).json()
                assert session["options"]["instructions"] == "Watch."
                assert session["frames"] >= 5

                ended = (await service.http.delete("/v1/streams/camera")).json()
                assert ended["state"] == "ended"
                assert ended["frames"] >= found["frames"]
                before = len(await given())
                await asyncio.sleep(1)
                assert len(await given()) == before, "it is still pulled"
                assert (await service.get("camera"))["state"] == "ended"
                assert (await service.http.get("/v1/sessions/camera")).status_code == 200
                again = await service.http.post("/v1/streams", json={"url": url, "id": "camera"})
                assert again.status_code == 400
                told = str((made, found, listed, ended))
                kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*.json"))
                assert kept
                assert "hush" not in told
                assert b"hush" not in kept
                deadline = time.monotonic() + 10
                while ray.util.list_named_actors(all_namespaces=True) != [
                    {"name": "holder", "namespace": "tests"}
                ]:
                    assert time.monotonic() < deadline, "its process stays"
                    await asyncio.sleep(0.2)

    asyncio.run(scenario())


@pytest.mark.parametrize("path", ["/silent", pytest.param("/stall.ts", marks=pytest.mark.long)])
def test_delete_takes_two_seconds_at_most(holder: str, tmp_path: Path, path: str) -> None:
    """Guards against a stop that waits for a source which does not answer."""

    async def scenario() -> None:
        with HttpSource() as source:
            async with api(tmp_path) as service:
                name = f"still-{path[1:3]}"
                await service.start(url=source.url + path, id=name)
                await asyncio.sleep(7)
                before = time.monotonic()
                ended = (await service.http.delete(f"/v1/streams/{name}")).json()
                assert time.monotonic() - before < 2
                assert ended["state"] == "ended"

    asyncio.run(scenario())


def test_a_pullers_death_costs_only_what_passed_meanwhile(holder: str, tmp_path: Path) -> None:
    """Guards against a stream that ends with its process, or begins again in numbers or times."""

    async def scenario() -> None:
        with HttpSource() as source:
            async with api(tmp_path) as service:
                made = await service.start(url=source.url + "/live.ts", fps=5, id="mortal")
                await service.until("mortal", lambda s: s["frames"] >= 8)
                so_far = len(await given())
                os.kill(puller_pid(), signal.SIGKILL)
                found = await service.until("mortal", lambda s: s["frames"] >= 25)
                assert found["state"] == "running"
                assert found["connections"] == 2
                await service.http.delete("/v1/streams/mortal")
                frames = [(t, n, r) for t, n, r in (await given())[so_far - 8 :]]
                times = [t for t, _, receipt in frames if receipt.outcome == "accepted"]
                assert times == sorted(set(times))
                seqs = [receipt.seq for _, _, receipt in frames]
                assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
                for time_s, number, _ in frames:
                    # `created` is a whole second.
                    late_s = time_s + made["created"] - source.drawn_at(number)
                    assert -1.3 < late_s < 0.6

    asyncio.run(scenario())


@pytest.mark.long
def test_a_source_that_ends_its_process_again_and_again_is_given_up(
    holder: str, tmp_path: Path
) -> None:
    """Guards the machine against a source that crashes its decoder for ever, and whoever asked for
    it against not being told.
    """

    async def scenario() -> None:
        with HttpSource() as source:
            async with api(tmp_path) as service:
                await service.start(url=f"{source.url}/silent", id="deadly", reconnect=True)
                beside = await service.start(url=f"{source.url}/live.ts", id="beside")
                assert beside["state"] == "starting"
                async with asyncio.timeout(90):
                    while (await service.get("deadly"))["state"] != "failed":
                        with suppress(ValueError):  # it has just given up
                            actor = ray.get_actor("stream:deadly", NAMESPACE)
                            actor.__ray_call__.remote(lambda _: os.abort())
                        await asyncio.sleep(0.3)
                found = await service.get("deadly")
                assert "died 6 times without a frame" in found["error"]
                assert (await service.http.get("/v1/sessions/deadly")).status_code == 200
                await service.until("beside", lambda s: s["frames"] >= 4)

    asyncio.run(scenario())


def test_what_cannot_be_started_leaves_nothing(holder: str, tmp_path: Path) -> None:
    """Guards against sessions that nobody feeds, and errors in another shape than the API's."""

    async def scenario() -> None:
        async with api(tmp_path, most=0) as service:
            for wanted, status, code in (
                ({"url": "file:///etc/passwd"}, 400, "url_not_allowed"),
                ({"url": "s3://nobodys/x.mp4"}, 400, "url_not_allowed"),
                ({"url": "http://user:hush@nowhere.invalid/x"}, 400, "url_unreachable"),
                ({"url": "http://127.0.0.1:9/x", "fsp": 2}, 422, "invalid_value"),
                ({"url": "http://127.0.0.1:9/x", "fps": -1}, 422, "invalid_value"),
                ({"url": "http://127.0.0.1:9/x"}, 429, "overloaded"),
            ):
                answer = await service.http.post("/v1/streams", json={**wanted, "id": "none"})
                assert answer.status_code == status, answer.text
                assert answer.json()["error"]["code"] == code
                assert "hush" not in answer.text
            assert (await service.http.get("/v1/sessions/none")).status_code == 404
            for name in ("none", "..%2Fjobs", "a b"):
                for method in ("GET", "DELETE"):
                    answer = await service.http.request(method, f"/v1/streams/{name}")
                    assert answer.status_code == 404

    asyncio.run(scenario())


def test_a_stream_whose_cluster_is_gone_does_not_seem_to_run(holder: str, tmp_path: Path) -> None:
    """Guards against a state that stands in the store and is no longer true."""

    async def scenario() -> None:
        with HttpSource() as source:
            async with api(tmp_path) as service:
                await service.start(url=source.url + "/live.ts", id="lost")
                await service.until("lost", lambda s: s["frames"] >= 2)
                await asyncio.sleep(2.5)
                ray.kill(ray.get_actor("stream:lost", NAMESPACE), no_restart=True)
                found = await service.until("lost", lambda s: s["state"] == "failed")
                assert "start it again" in found["error"]
                ended = await service.http.delete("/v1/streams/lost")
                assert ended.json()["state"] == "ended"

    asyncio.run(scenario())


def test_without_streams_the_routes_say_so() -> None:
    """Guards against a traceback where the service pulls nothing."""

    async def scenario() -> None:
        context = Context(None, None, MODEL, "/nowhere")  # type: ignore[arg-type]
        transport = httpx.ASGITransport(build(context))
        async with httpx.AsyncClient(transport=transport, base_url="http://api") as http:
            answer = await http.get("/v1/streams")
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "unavailable"

    asyncio.run(scenario())
