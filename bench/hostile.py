"""Everything hostile: media to decoding processes, the API by its own description, and a running
service under all of it at once.

``python -m bench.hostile --json``; zero is what counts: replicas that died, private addresses that
were fetched, things of one key that another reached, answers that are no 4xx.
"""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
from itertools import chain
from pathlib import Path
from typing import Any

import httpx
import ray
import schemathesis

from bench.harness import ratio, run
from bench.hostile_api import Fuzzed, fuzz
from bench.hostile_keys import Trespass, trespass
from bench.hostile_media import Outcome, offer
from bench.hostile_service import Assault, assault
from infra.hostile.bombs import bombs
from infra.hostile.mutations import mutated
from infra.hostile.seeds import seeds
from mod.checkpoint import TINY
from pipelines.cluster import connected
from serve.app import ReplicaPlan, deploy
from serve.decoding.calls import decoders
from serve.routes.context import ApiSettings

_PARTS = ("SERVE_REPLICA::longreel#", "SERVE_PROXY_ACTOR")


def measure(quick: bool) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Media in this process's decoders first, then a service of one replica."""
    files, examples, sent, flood_mib = (600, 4, 100, 96) if quick else (10_000, 20, 600, 512)
    settings = ApiSettings()
    media = {
        "bombs": asyncio.run(offer(bombs(), settings)),
        "mutated": asyncio.run(offer(mutated(seeds(), files), settings)),
    }
    for name, outcome in media.items():
        print(f"{name}: {outcome.shown()}", flush=True)
    counts = [decoders(settings).pictures.counts, decoders(settings).videos.counts]
    fuzzed, assaulted, crossed, deaths, memory = _served(examples, sent, flood_mib)
    found = {
        "replica_deaths": ratio([deaths]),
        "private_addresses_fetched": ratio([assaulted.private_hits]),
        "cross_key_reads": ratio([len(crossed.reads)]),
        "answers_that_are_no_4xx": ratio([_wrong(media, fuzzed, assaulted)]),
    }
    figures = {
        "media": {name: outcome.shown() for name, outcome in media.items()},
        "decoding_processes": {
            "calls": sum(c.calls for c in counts),
            "started": sum(c.started for c in counts),
            "died": sum(c.died for c in counts),
            "ended_as_too_slow": sum(c.timed_out for c in counts),
        },
        "api": fuzzed.shown(),
        "service": assaulted.shown(),
        "keys": crossed.shown(),
        "service_mib": memory,
    }
    told = {
        "files": files,
        "examples_an_operation": examples,
        "files_to_the_service": sent,
        "flood_mib": flood_mib,
        "decode_timeout_s": settings.decode_timeout_s,
        "decode_memory_mib": settings.decode_memory_bytes // 2**20,
    }
    return told, found, figures


def _wrong(media: dict[str, Outcome], fuzzed: Fuzzed, assaulted: Assault) -> int:
    return sum(len(o.wrong) for o in media.values()) + len(fuzzed.failures) + len(assaulted.wrong)


def _served(
    examples: int, sent: int, flood_mib: int
) -> tuple[Fuzzed, Assault, Trespass, int, dict[str, dict[str, int]]]:
    """A real service: fuzzed, then assaulted, then asked by one key for another's; processes of it
    that died, and their memory.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    # Other numbers than those that this process's decoders had.
    files = list(chain(mutated(seeds(), sent, seed=1), bombs()))
    with tempfile.TemporaryDirectory(prefix="longreel-") as folder, connected("local"):
        plan, http = ReplicaPlan(TINY, state=str(Path(folder) / "state")), ("127.0.0.1", port)
        deploy(plan, http=http)
        before = _processes()
        memory = {"before": _resident(before)}
        httpx.post(f"{url}/v1/sessions", json={"id": "fuzzed"}).raise_for_status()
        whole = schemathesis.openapi.from_url(f"{url}/openapi.json")
        # Jobs would read and write wherever the fuzzer says.
        schema = whole.exclude(path_regex="^/v1/jobs")
        fuzzed = fuzz(schema, examples, {"session": "fuzzed", "model": TINY})
        print(f"api: {fuzzed.shown()}", flush=True)
        assaulted = asyncio.run(assault(url, files, flood_mib, slow=100))
        print(f"service: {assaulted.shown()}", flush=True)
        after = _processes()
        memory["after"] = _resident(after)
        deaths = sum(after.get(name) != pid for name, pid in before.items())
        # Another gateway, whose clients need keys, before the same replica.
        deploy(plan, http=http, settings=ApiSettings(keys=True, allow_private_urls=True))
        crossed = trespass(url, str(plan.state))
        print(f"keys: {crossed.shown()}", flush=True)
    return fuzzed, assaulted, crossed, deaths, memory


def _processes() -> dict[str, int]:
    """Pids of replicas, gateway and proxy, by name."""
    found = {}
    for actor in ray.util.list_named_actors(all_namespaces=True):
        name = actor["name"]
        if name.startswith(_PARTS):
            handle = ray.get_actor(name, namespace=actor["namespace"])
            found[name] = ray.get(handle.__ray_call__.remote(lambda _: os.getpid()), timeout=60)
    return found


def _resident(processes: dict[str, int]) -> dict[str, int]:
    """MiB of each."""
    page = os.sysconf("SC_PAGE_SIZE")
    return {
        name: int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page // 2**20
        for name, pid in processes.items()
    }


if __name__ == "__main__":
    run("hostile", measure)
