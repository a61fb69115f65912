"""Which live sessions change their replica when one more comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx

from bench.serve_load import PNG, picture

#: For routers to hear of a new replica, in seconds.
SETTLE_S = 5.0


async def moved(url: str, n: int, scale: Callable[[], None], *, hashed: bool) -> dict[str, float]:
    """Share of ``n`` live sessions that moved while ``scale`` added a replica.

    Args:
        hashed: through the consistent-hash router instead of ours.

    Returns:
        ``moved``, and ``forgotten``: the share that did not know its past any more.
    """
    body = picture(3)
    async with httpx.AsyncClient(
        base_url=url,
        timeout=120,
        limits=httpx.Limits(max_connections=8),
    ) as client:
        see = _hashed if hashed else _ours
        if hashed:
            names = [f"moves-{number}" for number in range(n)]
        else:
            opened = [await client.post("/v1/sessions", json={}) for _ in range(n)]
            names = [reply.json()["id"] for reply in opened]
        before = await asyncio.gather(*[see(client, name, body) for name in names])
        await asyncio.to_thread(scale)
        await asyncio.sleep(SETTLE_S)
        after = await asyncio.gather(*[see(client, name, body) for name in names])
        if not hashed:
            await _require_another(client, {replica for replica, _ in before}, body)
        below = "/hashed" if hashed else "/v1/sessions"
        await asyncio.gather(*[client.delete(f"{below}/{name}") for name in names])
    return {
        "moved": sum(a[0] != b[0] for a, b in zip(before, after, strict=True)) / n,
        "forgotten": sum(found != 2 for _, found in after) / n,
    }


async def _require_another(client: httpx.AsyncClient, known: set[str], body: bytes) -> None:
    """Where none came, nothing could move either."""
    for _ in range(10 * (1 + len(known))):
        name = (await client.post("/v1/sessions", json={})).json()["id"]
        replica, _ = await _ours(client, name, body)
        await client.delete(f"/v1/sessions/{name}")
        if replica not in known:
            return
    raise AssertionError("no new session came to a replica that was not there before")


async def _ours(client: httpx.AsyncClient, name: str, body: bytes) -> tuple[str, int]:
    """Give one frame; who has the session, and how many frames it knows."""
    given = await client.post(f"/v1/sessions/{name}/frames", content=body, headers=PNG)
    assert given.status_code == 200, given.text
    shown: dict[str, Any] = (await client.get(f"/v1/sessions/{name}")).json()
    return shown["replica"], shown["frames"]


async def _hashed(client: httpx.AsyncClient, name: str, body: bytes) -> tuple[str, int]:
    given = await client.post(f"/hashed/{name}/frames", content=body, headers=PNG)
    assert given.status_code == 200, given.text
    told: dict[str, Any] = given.json()
    return told["replica"], told["known"]
