"""The routes on sessions in memory: through ASGI alone, and behind a real uvicorn on loopback."""

from __future__ import annotations

import asyncio
import io
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx
import uvicorn
from fastapi import FastAPI
from PIL import Image

from serve.routes.app import build
from serve.routes.context import Answers, ApiSettings, Context, ModelInfo
from tests.serve.memory_sessions import MODEL_FPS, MemorySessions

MODEL = ModelInfo(
    name="longreel-tiny",
    revision="1",
    side=96,
    fps=MODEL_FPS,
    keep_ratio=0.2,
    router="bounded",
    tokens_per_frame=10,
    digest=True,
    summary_request="Summarize.",
)


def application(sessions: MemorySessions, **settings: Any) -> FastAPI:
    """The API on ``sessions``; nobody asks it for chat."""
    context = Context(sessions, cast(Answers, None), MODEL, "unused", ApiSettings(**settings))
    return build(context)


def described(**fields: Any) -> str:
    """The message before a frame on a session's socket."""
    return json.dumps({"type": "frame", **fields})


def picture(level: int, side: int = 48, format_: str = "JPEG") -> bytes:
    """An encoded picture of one grey (0-255)."""
    data = io.BytesIO()
    Image.new("RGB", (side, side), (level,) * 3).save(data, format_)
    return data.getvalue()


def form(*levels: int) -> list[tuple[str, tuple[str, bytes]]]:
    """Pictures of these greys as parts of a form."""
    return [("frames", ("frame.jpg", picture(level))) for level in levels]


@asynccontextmanager
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of ``app`` without a socket between; a stream's reply comes when it has ended."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as opened:
        yield opened


@asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[str]:
    """``host:port`` of ``app`` behind uvicorn, on this event loop so that tests see its tasks."""
    config = uvicorn.Config(
        app,
        log_level="error",
        ws_ping_interval=None,
        lifespan="off",
        timeout_graceful_shutdown=1,  # a test that fails shall not wait for what it left open
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        running = asyncio.create_task(server.serve([listening]))
        while not server.started:
            await asyncio.sleep(0.01)
        try:
            yield f"127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            await running


async def until(holds: Any, within_s: float = 20.0) -> None:
    """Wait until ``holds()``.

    Raises:
        TimeoutError: it does not.
    """
    async with asyncio.timeout(within_s):
        while not holds():
            await asyncio.sleep(0.01)
