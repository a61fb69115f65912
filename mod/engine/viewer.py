"""One stream driven from a plain script: give frames or a question, get what became of them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from mod.decoder import RoutedDecoder
from mod.engine.cache import Memory
from mod.engine.engine import Engine
from mod.engine.events import Collector, FrameOutcome
from mod.layout import Layout

#: Room for caches; host memory is taken as it is touched.
CAPACITY_BYTES = 2**30


class Viewer:
    """A stream with an engine of its own.

    Args:
        capacity_bytes: room for caches.
        options: of :meth:`mod.engine.engine.Engine.open`.
    """

    def __init__(
        self,
        model: RoutedDecoder,
        layout: Layout,
        *,
        capacity_bytes: int = CAPACITY_BYTES,
        **options: Any,
    ) -> None:
        memory = Memory(model.config, capacity_bytes, dtype=model.dtype, device=model.device)
        self.engine = Engine(model, layout, memory)
        self.engine.open("viewer", **options)

    def watch(self, frames: Tensor) -> list[FrameOutcome]:
        """See ``frames`` (n, height, width, 3) uint8; what the model made of each.

        Raises:
            ValueError: they are no pictures of the model's size.
            RuntimeError: the model could not take them in.
        """
        self.engine.push("viewer", frames)
        return self._run(Collector(len(frames))).outcomes

    def ask(self, text: str) -> str:
        """The answer to ``text``.

        Raises:
            RuntimeError: it could not be answered.
        """
        self.engine.ask("viewer", "question", text)
        return self._run(Collector()).answer

    def _run(self, told: Collector) -> Collector:
        while self.engine.busy:
            for event in self.engine.step():
                told.take(event)
        if told.error:
            raise RuntimeError(told.error)
        return told
