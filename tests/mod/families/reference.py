"""What transformers says about tiny checkpoints, from a process of its own.

Its processors for videos need torchvision, which must be nowhere near the processes under test:
``make`` installs it apart, and ``tiny`` makes it work there.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]


def make(family: str, folder: Path, **options: Any) -> None:
    """Write the tiny checkpoint of a family, by transformers' name of its model type."""
    _asked("make", family, folder, options)


def side_of(folder: Path) -> int:
    """Side of the pictures that the processor leaves as they are, in pixels."""
    side: int = _asked("side_of", folder)
    return side


def frames_of(n: int, side: int, seed: int) -> Frames:
    """``n`` pictures that change, (n, side, side, 3)."""
    found: Frames = _asked("frames_of", n, side, seed)
    return found


def says(
    folder: Path,
    frames: Frames,
    question: str,
    fps: float,
    most: int = 24,
    quantize: str | None = None,
) -> list[int]:
    """The tokens that ``generate`` gives, greedily."""
    found: list[int] = _asked("reference", folder, frames, question, fps, most, quantize)
    return found


def loss(folder: Path, frames: Frames, question: str, answer: Sequence[int], fps: float) -> float:
    """Mean negative log-likelihood of the tokens of an answer."""
    found: float = _asked("loss", folder, frames, question, list(answer), fps)
    return found


def prompt_ids(folder: Path, frames: Frames, question: str, fps: float) -> list[int]:
    """The tokens that the processor makes of frames and question."""
    found: list[int] = _asked("prompt_ids", folder, frames, question, fps)
    return found


def _asked(name: str, *args: Any) -> Any:
    return _pool().submit(_answer, name, *args).result(timeout=300)


@cache
def _pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, get_context("spawn"), _begin)


def _begin() -> None:
    sys.path.append(str(Path(sys.prefix) / "torchvision"))


def _answer(name: str, *args: Any) -> Any:
    # Here, in the other process: this one has imported transformers without torchvision.
    tiny = import_module("tests.mod.families.tiny")
    if name == "make":
        family, folder, options = args
        return tiny.FAMILIES[family](folder, **options)
    return getattr(tiny, name)(*args)
