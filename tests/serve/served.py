"""The HTTP API on a real server of this process, on loopback."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import uvicorn
from fastapi import FastAPI

from serve.chat import Answered
from serve.routes.context import ModelInfo
from tests.ports import free_ports

MODEL = ModelInfo(
    name="foretold",
    revision="0123456789ab",
    side=96,
    fps=2.0,
    keep_ratio=0.2,
    router="bounded",
    tokens_per_frame=10,
    digest=False,
    summary_request="Summarize the video so far.",
)


@dataclass
class WordAnswers:
    """Answers to text by a rule: ``<system>|<text>`` to at most so many words, a token each."""

    asked: list[str] = field(default_factory=list)

    async def chat(self, system: str, text: str, most_tokens: int) -> Answered:
        """See ``Answers``."""
        self.asked.append(text)
        words = f"{system}|{text}".split()
        said = words[:most_tokens]
        return Answered(
            text=" ".join(said),
            finish_reason="length" if len(said) < len(words) else "stop",
            prompt_tokens=await self.tokens([system, text]),
            completion_tokens=len(said),
        )

    async def tokens(self, texts: Sequence[str]) -> int:
        """See ``Answers``."""
        return sum(len(text.split()) for text in texts)


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """The address of ``app`` while it is served."""
    (port,) = free_ports(1)
    server = uvicorn.Server(
        uvicorn.Config(app, "127.0.0.1", port, log_level="warning", lifespan="off")
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)
