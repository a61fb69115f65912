"""The replica: one deployment that holds the model and its session engine."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from actors.statestore import StateStore
from longreel.errors import UsageError
from mod.checkpoint import find_checkpoint
from mod.cost import vision_token_layers
from mod.engine.cache import Memory
from mod.engine.engine import Engine
from mod.engine.policy import Window
from mod.loading import load_any, refuse_larger_than_memory
from mod.summarizing import by_rule, plain_lines
from serve.chat import Answered
from serve.directory import ActorDirectory, start_directory
from serve.engine_loop import EngineLoop, LoopStream
from serve.live.calls import SessionCalls, replica_name
from serve.live.owner import Owner, OwnerSettings
from serve.narrated import Narrated
from serve.served import Served, difference


class Replica(SessionCalls):
    """Holds one checkpoint and an engine, whose steps live sessions share.

    Args:
        model: name or folder of the checkpoint.
        keep_ratio: overrides the checkpoint's own when not None.
        threads: of torch in this process; 0 leaves torch's default.
        state: uri of the state store; None keeps no sessions.
        directory: name of the session directory's actor; None together with ``state``.
        idle_s: after which a session that nobody uses is kept in the store alone.
        router: takes the place of the checkpoint's own when not None; see :mod:`mod.choice`.
        quantize: what the decoder's weights are turned into; see :mod:`mod.quantized`.
    """

    def __init__(
        self,
        model: str,
        keep_ratio: float | None,
        threads: int,
        state: str | None = None,
        directory: str | None = None,
        idle_s: float = 120.0,
        router: str | None = None,
        quantize: str | None = None,
    ) -> None:
        if threads:
            torch.set_num_threads(threads)
        room = partial(refuse_larger_than_memory, quantize=quantize)
        self._checkpoint = find_checkpoint(model, check=room)
        network, layout = load_any(self._checkpoint, keep_ratio, router, quantize)
        self._config, self._layout = network.config, layout
        name, revision = self._checkpoint.name, self._checkpoint.revision
        self._served = Served(name, revision, network.config.mean_keep_ratio, router, quantize)
        self._capacity = _cache_bytes()
        memory = Memory(
            network.config,
            self._capacity,
            dtype=network.dtype,
            device=network.device,
            devices=network.layer_devices,
        )
        # What another router, or rounder weights, let pass is not what these would have; and
        # caches are kept as they lie.
        spread = f"on {len(memory.classes)}" if network.layer_devices else None
        identity = " ".join(filter(None, (self._checkpoint.revision, router, quantize, spread)))
        engine = Engine(network, layout, memory, identity=identity)
        self._engine = EngineLoop(engine)
        self._memory = memory
        if state:
            start_directory(state)
        owner = Owner(
            self._engine,
            OwnerSettings(
                replica=replica_name(),
                fps=float(network.config.fps),
                side=int(network.config.image_size),
                decode=layout.decode,
                memory=self._free_bytes,
                idle_s=idle_s,
            ),
            StateStore(state) if state else None,
            ActorDirectory(directory) if directory else None,
        )
        super().__init__(owner)
        # Nothing writes to frames.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")

    def _free_bytes(self) -> tuple[int, int]:
        used = self._memory.used_bytes
        return self._capacity - used, self._capacity

    async def info(self) -> dict[str, Any]:
        """The fields of ``serve.routes.context.ModelInfo``."""
        config = self._config
        return {
            "name": self._checkpoint.name,
            "revision": self._checkpoint.revision,
            "side": int(config.image_size),
            "fps": float(config.fps),
            "keep_ratio": config.mean_keep_ratio,
            "router": config.router,
            "tokens_per_frame": config.tokens_per_frame,
            "frames_per_step": config.frames_per_step,
            "quantize": self._served.quantize,
            "digest": config.summarizer == "digest",
            "summary_request": config.summary_request,
        }

    def record_autoscaling_stats(self) -> dict[str, float]:
        """The fields of ``serve.scaling.Report``; Ray Serve asks for them."""
        return asdict(self._owner.report())

    async def describe(self) -> Served:
        """What is served here."""
        return self._served

    def _require(self, wanted: Served | None) -> None:
        """Refuse to make rows of another model than their job names.

        Jobs look before they begin; the service may be another one since.
        """
        if wanted is not None and (differs := difference(self._served, wanted)):
            raise UsageError(differs)

    async def narrate(
        self,
        frames: NDArray[np.uint8],
        instruction: str,
        silence_threshold: float,
        fps: float | None = None,
        wanted: Served | None = None,
    ) -> Narrated:
        """Watch ``frames`` (n, height, width, 3) as one short session, then summarize it.

        Args:
            fps: frames a second; the checkpoint's own when None.
            wanted: what the job's rows name; None takes what there is.

        Raises:
            UsageError: this is not what is wanted.
            ValueError: they are no pictures of the model's size.
            ModelError: the model could not take them in.
        """
        self._require(wanted)
        opening = self._engine.open(
            instruction=instruction,
            threshold=silence_threshold,
            kind="bulk",
            frames=len(frames),
            fps=fps,
        )
        async with _closing(await opening) as stream:
            return await self._watch(stream, frames)

    async def follow(
        self,
        frames: NDArray[np.uint8],
        instruction: str,
        silence_threshold: float,
        state: bytes | None,
        fps: float | None = None,
        wanted: Served | None = None,
    ) -> tuple[Narrated, bytes]:
        """Watch the next ``frames`` of one long stream, then summarize them.

        The stream remembers its last minutes, so its state does not grow with it.

        Args:
            state: what the call for the frames before returned; None begins a stream.
            fps: frames a second of a stream that begins; the checkpoint's own when None.
            wanted: see ``narrate``.

        Returns:
            What came of the frames, and the state to go on from, in this replica or another.

        Raises:
            UsageError: this is not what is wanted.
            ValueError: they are no pictures of the model's size, or the state does not fit.
            ModelError: the model could not take them in.
        """
        self._require(wanted)
        if state is None:
            opening = self._engine.open(
                instruction=instruction,
                threshold=silence_threshold,
                kind="bulk",
                policy=Window(),
                fps=fps,
            )
        else:
            opening = self._engine.resume(state)
        async with _closing(await opening) as stream:
            narrated = await self._watch(stream, frames)
            return narrated, await stream.state()

    async def summarize(self, texts: list[str], wanted: Served | None = None) -> str:
        """One summary of the summaries of consecutive parts.

        Args:
            wanted: see ``narrate``.

        Raises:
            UsageError: this is not what is wanted.
        """
        self._require(wanted)
        if self._config.summarizer == "digest":
            return by_rule(texts)
        async with _closing(await self._engine.open(instruction=None, kind="bulk")) as stream:
            return await stream.ask(" ".join([*texts, self._config.summary_request]))

    async def chat(self, system: str, text: str, most_tokens: int) -> Answered:
        """An answer to text alone.

        A checkpoint that summarizes by rule answers with the digest of the narrations it is given,
        a line each.

        Args:
            system: opens the stream; empty takes the checkpoint's own instruction.
            most_tokens: bound on the answer.

        Raises:
            ModelError: the model could not take it in.
        """
        if self._config.summarizer == "digest":
            said = by_rule(plain_lines(text))
            # A rule knows no bound.
            if len(ids := self._layout.encode(said)) > most_tokens:
                ids = ids[:most_tokens]
                said = self._layout.decode(ids)
            n = len(ids)
        else:
            opening = self._engine.open(
                instruction=system or None, kind="bulk", max_new_tokens=most_tokens
            )
            async with _closing(await opening) as stream:
                said = await stream.ask(text)
                # Words spelled again may be fewer or more, where one was a space or half a letter.
                n = stream.n_words
        return Answered(
            text=said,
            finish_reason="length" if n >= most_tokens else "stop",
            prompt_tokens=len(self._layout.encode(system)) + len(self._layout.encode(text)),
            completion_tokens=n,
        )

    async def tokens(self, texts: Sequence[str]) -> int:
        """Tokens of ``texts``, in all."""
        return sum(len(self._layout.encode(text)) for text in texts)

    async def _watch(self, stream: LoopStream, frames: NDArray[np.uint8]) -> Narrated:
        # No copy: frames that came through the object store are read where they lie.
        outcomes = await stream.watch(torch.from_numpy(frames))
        kv_bytes = await stream.held_bytes()
        texts = [outcome.text for outcome in outcomes]
        model_s = stream.model_s
        if self._config.summarizer == "digest":
            summary = by_rule([text for text in texts if text])
        else:
            # Beside the stream, which shall not remember that it was asked.
            async with _closing(await self._engine.fork(stream)) as aside:
                summary = await aside.ask(self._config.summary_request)
                model_s += aside.model_s
        return Narrated(
            texts=texts,
            salience=[1.0 - outcome.p_silence for outcome in outcomes],
            summary=summary,
            vision_tokens=self._config.vision_tokens(len(outcomes)),
            processed_token_layers=vision_token_layers(self._config, len(outcomes)),
            kv_bytes=kv_bytes,
            model_s=model_s,
        )


@asynccontextmanager
async def _closing(stream: LoopStream) -> AsyncIterator[LoopStream]:
    try:
        yield stream
    finally:
        await stream.close()


def _cache_bytes() -> int:
    """Room for caches: most of what is free on GPUs, else as much as is touched of 2 GiB."""
    if torch.cuda.is_available():
        devices = range(torch.cuda.device_count())
        free = min(torch.cuda.mem_get_info(device)[0] for device in devices)
        return int(0.8 * free * len(devices))
    return 2 * 2**30
