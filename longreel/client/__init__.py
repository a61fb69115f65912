"""The Python client of the service: ``Client``, and ``AsyncClient`` for asyncio.

What a call does lies in generators of steps without input or output (``session_calls``,
``event_calls``, ``service_calls``); ``transport`` carries them out. Nothing here needs Ray, torch
or a codec.
"""

from longreel.client.aio import AsyncClient, AsyncSession
from longreel.client.errors import APIError
from longreel.client.sync import Client, Session
from longreel.client.types import (
    Answer,
    Event,
    File,
    FrameOutcome,
    Job,
    Model,
    Response,
    SessionInfo,
    Stream,
)

__all__ = [
    "APIError",
    "Answer",
    "AsyncClient",
    "AsyncSession",
    "Client",
    "Event",
    "File",
    "FrameOutcome",
    "Job",
    "Model",
    "Response",
    "Session",
    "SessionInfo",
    "Stream",
]
