"""Parts of a bench with a large model, each of which may fail by itself, as for want of memory."""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Callable
from typing import Any

import torch


class Parts:
    """The parts of a bench; one that cannot run here is named with the reason, and stops no other.

    Attributes:
        ratios: of all parts.
        figures: by part, and under ``skipped`` why there are none.
    """

    def __init__(self) -> None:
        self.ratios: dict[str, Any] = {}
        self.figures: dict[str, Any] = {"skipped": {}}

    def run(self, name: str, what: Callable[[], tuple[dict[str, Any], dict[str, Any]]]) -> None:
        """Add the ratios and figures of one part."""
        started = time.perf_counter()
        try:
            ratios, figures = what()
            self.ratios.update(ratios)
            self.figures[name] = figures
            # Of a run that is stopped before its end this is what is left.
            print(name, ratios, figures)
        except Exception as failure:
            traceback.print_exc()
            self.skip(name, f"{type(failure).__name__}: {failure}")
        free_what_nobody_holds()
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)

    def skip(self, name: str, reason: str) -> None:
        """There is no such part, and why; the first line of ``reason`` is kept."""
        self.figures["skipped"][name] = reason.splitlines()[0]


def free_what_nobody_holds() -> None:
    """Give the GPU's memory back as far as nothing refers to it."""
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()
