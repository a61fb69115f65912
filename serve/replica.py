"""The replica: one deployment that holds the model and its session engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import torch
from numpy.typing import NDArray

from mod.checkpoint import Checkpoint, find_checkpoint
from mod.cost import vision_token_layers
from mod.engine.cache import Memory
from mod.engine.engine import Engine
from mod.loading import load
from mod.summarizing import by_rule
from serve.engine_loop import EngineLoop, LoopStream
from serve.narrated import Narrated


class Replica:
    """Holds one checkpoint and an engine; calls share the engine's steps.

    Args:
        model: name or folder of the checkpoint.
        keep_ratio: overrides the checkpoint's own when not None.
        threads: of torch in this process; 0 leaves torch's default.
    """

    def __init__(self, model: str, keep_ratio: float | None, threads: int) -> None:
        if threads:
            torch.set_num_threads(threads)
        self._checkpoint = find_checkpoint(model)
        network, layout = load(self._checkpoint, keep_ratio)
        self._config = network.config
        memory = Memory(network.config, _cache_bytes(), dtype=network.dtype, device=network.device)
        engine = Engine(network, layout, memory, identity=self._checkpoint.revision)
        self._engine = EngineLoop(engine)

    async def describe(self) -> tuple[Checkpoint, float]:
        """The checkpoint and the keep ratio in use."""
        return self._checkpoint, self._config.keep_ratio

    async def narrate(
        self, frames: NDArray[np.uint8], instruction: str, silence_threshold: float
    ) -> Narrated:
        """Watch ``frames`` (n, height, width, 3) as one short session, then summarize it.

        Raises:
            ValueError: they are no pictures of the model's size.
            ModelError: the model could not take them in.
        """
        async with self._stream(instruction, silence_threshold) as stream:
            # Frames that arrive through the object store are read-only; torch wants to own them.
            outcomes = await stream.watch(torch.from_numpy(np.array(frames)))
            kv_bytes = await stream.held_bytes()
            texts = [outcome.text for outcome in outcomes]
            if self._config.summarizer == "digest":
                summary = by_rule([text for text in texts if text])
            else:
                summary = await stream.ask(self._config.summary_request)
            return Narrated(
                texts=texts,
                salience=[1.0 - outcome.p_silence for outcome in outcomes],
                summary=summary,
                vision_tokens=len(outcomes) * self._config.tokens_per_frame,
                processed_token_layers=vision_token_layers(self._config, len(outcomes)),
                kv_bytes=kv_bytes,
                model_s=stream.model_s,
            )

    async def summarize(self, texts: list[str]) -> str:
        """One summary of the summaries of consecutive parts."""
        if self._config.summarizer == "digest":
            return by_rule(texts)
        async with self._stream(None, 0.0) as stream:
            return await stream.ask(" ".join([*texts, self._config.summary_request]))

    @asynccontextmanager
    async def _stream(self, instruction: str | None, threshold: float) -> AsyncIterator[LoopStream]:
        stream = await self._engine.open(instruction=instruction, threshold=threshold, kind="bulk")
        try:
            yield stream
        finally:
            await stream.close()


def _cache_bytes() -> int:
    """Room for caches: most of what is free on a GPU, else as much as is touched of 2 GiB."""
    if torch.cuda.is_available():
        free, _ = torch.cuda.mem_get_info()
        return int(0.8 * free)
    return 2 * 2**30
