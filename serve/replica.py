"""The replica: one deployment that holds the model and works on bounded calls."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from ray import serve

from mod.checkpoint import Checkpoint, find_checkpoint
from mod.cost import vision_token_layers
from mod.loading import load
from mod.session import Session
from mod.summarizing import summarize_session, summarize_texts


@dataclass(frozen=True)
class Narrated:
    """What the model made of one segment's frames.

    Attributes:
        texts: per frame, the narration or None for silence.
        salience: per frame, the probability with which the model wanted to speak (0-1).
        summary: one or a few sentences.
        vision_tokens: vision tokens that entered the decoder.
        processed_token_layers: token-layers that ran for vision tokens.
        kv_bytes: bytes of keys and values at the end of the segment.
        model_s: seconds in the model.
    """

    texts: list[str | None]
    salience: list[float]
    summary: str
    vision_tokens: int
    processed_token_layers: int
    kv_bytes: int
    model_s: float


class Replica:
    """Holds one checkpoint; calls take turns at the model.

    Args:
        model: name or folder of the checkpoint.
        keep_ratio: overrides the checkpoint's own when not None.
        threads: of torch in this process; 0 leaves torch's default.
    """

    def __init__(self, model: str, keep_ratio: float | None, threads: int) -> None:
        if threads:
            torch.set_num_threads(threads)
        self._checkpoint = find_checkpoint(model)
        self._model, self._layout = load(self._checkpoint, keep_ratio)
        self._keep_ratio = self._model.config.keep_ratio
        self._turn = asyncio.Lock()

    async def describe(self) -> tuple[Checkpoint, float]:
        """The checkpoint and the keep ratio in use."""
        return self._checkpoint, self._keep_ratio

    async def narrate(
        self, frames: NDArray[np.uint8], instruction: str, silence_threshold: float
    ) -> Narrated:
        """Watch ``frames`` (n, height, width, 3) as one short session, then summarize it."""
        async with self._turn:
            return await asyncio.to_thread(self._narrate, frames, instruction, silence_threshold)

    async def summarize(self, texts: list[str]) -> str:
        """One summary of the summaries of consecutive parts."""
        async with self._turn:
            return await asyncio.to_thread(summarize_texts, self._model, self._layout, texts)

    def _narrate(self, frames: Any, instruction: str, silence_threshold: float) -> Narrated:
        started = time.perf_counter()
        config = self._model.config
        session = Session(
            self._model,
            self._layout,
            instruction=instruction,
            silence_threshold=silence_threshold,
        )
        # Frames that arrive through the object store are read-only; torch wants to own them.
        outcomes = session.watch(torch.from_numpy(np.array(frames)))
        texts = [o.text for o in outcomes]
        summary = summarize_session(session, self._model, [t for t in texts if t])
        return Narrated(
            texts=texts,
            salience=[1.0 - o.p_silence for o in outcomes],
            summary=summary,
            vision_tokens=len(outcomes) * config.tokens_per_frame,
            processed_token_layers=vision_token_layers(config, len(outcomes)),
            kv_bytes=session.cache.n_bytes,
            model_s=time.perf_counter() - started,
        )


ReplicaDeployment = serve.deployment(name="replica", max_ongoing_requests=8)(Replica)
