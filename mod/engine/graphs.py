"""Steps of one token a session, recorded once per size: the device runs them without launches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mod.decoder import RoutedDecoder, Stream
from mod.engine.cache import Memory
from mod.engine.paged import DeviceTables, Kernel, PagedStep, on_device
from mod.engine.tables import Tables, bucket, decode_bucket

#: Makes of a function over fixed tensors one that can be run again and again.
Recorder = Callable[[Callable[[], Tensor]], Callable[[], Tensor]]


def cuda_recorder() -> Recorder:
    """Recordings as CUDA graphs that share one pool of memory."""
    pool = torch.cuda.graph_pool_handle()

    def record(run: Callable[[], Tensor]) -> Callable[[], Tensor]:
        # Kernels are chosen and workspaces taken before anything is recorded.
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):
                run()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            out = run()

        def replay() -> Tensor:
            graph.replay()
            return out

        return replay

    return record


@dataclass(frozen=True)
class _Recorded:
    """A recording and the tensors that it reads."""

    ids: Tensor
    positions: Tensor
    steps: list[DeviceTables]
    replay: Callable[[], Tensor]


class DecodeGraphs:
    """Runs decode-only steps from recordings, one for each size; sizes are powers of two.

    Args:
        recorder: ``cuda_recorder()``, or anything that runs the function again.
        most: sequences of the largest recording; beyond it nothing is recorded.
    """

    def __init__(
        self,
        model: RoutedDecoder,
        memory: Memory,
        kernel: Kernel,
        recorder: Recorder,
        most: int = 256,
    ) -> None:
        self._model, self._memory, self._kernel = model, memory, kernel
        self._recorder, self._most = recorder, most
        self._recorded: dict[tuple[int, ...], _Recorded] = {}

    @property
    def n_recorded(self) -> int:
        """Recordings so far."""
        return len(self._recorded)

    def fits(self, n: int) -> bool:
        """Whether a step of ``n`` sequences is run from a recording."""
        return 0 < bucket(n) <= self._most

    def run(self, ids: Sequence[int], positions: Sequence[int], host: Sequence[Tables]) -> Tensor:
        """Next-token logits (sequences, vocabulary) after one token of each sequence.

        Args:
            host: per class of layers, the step's tables; pages are taken already.
        """
        n = len(ids)
        padded = [decode_bucket(step) for step in host]
        size = len(padded[0].used)
        device = self._memory.pools[0].keys.device
        fresh_ids = on_device([*ids, *[ids[-1]] * (size - n)], torch.long, device)
        last = positions[-1]
        fresh_positions = on_device([*positions, *[last] * (size - n)], torch.long, device)
        fresh = [
            DeviceTables.of(step, pool.page_size, device)
            for step, pool in zip(padded, self._memory.pools, strict=True)
        ]
        key = (size, *(len(step.pages[0]) for step in padded))
        if key not in self._recorded:
            # A recording runs while it is made, so its tensors must hold a real step by then.
            self._recorded[key] = self._record(fresh_ids, fresh_positions, fresh)
        recorded = self._recorded[key]
        recorded.ids.copy_(fresh_ids)
        recorded.positions.copy_(fresh_positions)
        for ours, theirs in zip(recorded.steps, fresh, strict=True):
            for name in ("slots", "used", "pages"):
                getattr(ours, name).copy_(getattr(theirs, name))
        return recorded.replay()[:n].clone()

    def _record(self, ids: Tensor, positions: Tensor, steps: list[DeviceTables]) -> _Recorded:
        paged = PagedStep.over(self._memory, self._kernel, steps)
        nowhere = torch.zeros(0, dtype=torch.long, device=ids.device)
        lengths = [1] * len(ids)

        def run() -> Tensor:
            embeddings = self._model.embed_text(ids)
            stream = Stream(
                embeddings, positions, nowhere, lengths, frames=[0] * len(lengths), paged=paged
            )
            out: Tensor = self._model.logits(self._model(stream)).float()
            return out

        return _Recorded(ids, positions, steps, self._recorder(run))
