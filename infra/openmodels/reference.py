"""What transformers says about tiny checkpoints, from a process of its own.

Its processors for videos need torchvision, which must be nowhere near the processes under test:
``make`` installs it apart, and it is made to work there.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import traceback
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

_TORCHVISION = Path(sys.prefix) / "torchvision"
_LOCK = threading.Lock()
Frames = NDArray[np.uint8]


def available() -> bool:
    """Whether what the reference needs was installed."""
    return _TORCHVISION.is_dir()


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
    with _LOCK:
        process = _process()
        assert process.stdin is not None
        assert process.stdout is not None
        pickle.dump((name, args), process.stdin)
        process.stdin.flush()
        told, value = pickle.load(process.stdout)
    if told != "answer":
        raise RuntimeError(value)
    return value


@cache
def _process() -> subprocess.Popen[bytes]:
    """The other process; it ends with this one, whose end of the pipe it reads."""
    command = [sys.executable, "-m", "infra.openmodels.reference"]
    root = Path(__file__).parent.parent.parent
    # Failures come as answers; what else is said there is of no interest here.
    pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=nothing, cwd=root)


def _complete_torchvision() -> None:
    """Let ``torchvision`` be imported beside a PyTorch that it was not built for.

    The index has it built for CUDA. A CPU build of PyTorch cannot load the operators compiled in
    it, and still it registers what two of them do to shapes, which fails where nothing has
    declared them. What processors take from it, its transforms, needs neither.
    """
    try:
        import_module("torchvision")
    except RuntimeError:
        for name in ("nms", "qnms"):
            schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            torch.library.define(f"torchvision::{name}", schema)
        import_module("torchvision")


def _answers() -> None:
    """What the other process does: read what is asked, write what is answered."""
    # What libraries print is not to stand between answers.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.path.append(str(_TORCHVISION))
    # transformers imports it when a processor is first looked up.
    _complete_torchvision()
    # Here, and not in the process that asks: that one has transformers without torchvision.
    answers, tiny = (import_module(f"infra.openmodels.{name}") for name in ("answers", "tiny"))
    while True:
        try:
            name, args = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            if name == "make":
                family, folder, options = args
                answer = "answer", tiny.FAMILIES[family](folder, **options)
            else:
                answer = "answer", getattr(answers, name)(*args)
        except Exception:
            answer = "failure", traceback.format_exc()
        pickle.dump(answer, out)
        out.flush()


if __name__ == "__main__":
    _answers()
