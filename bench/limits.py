"""What this machine can do at most, measured beside a bench: arithmetic and memory.

A bench that counts its own arithmetic says under ``figures.limits`` what share of it that is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

#: Side of the matrices that are multiplied: large enough for any cache to be used well.
_SIDE = 1024
#: Bytes that are copied at a time: more than any cache holds.
_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Limits:
    """The most that was reached.

    Attributes:
        flops_per_s: of a matrix product, a multiplication and an addition counted as two.
        bytes_per_s: of a copy, reads and writes counted.
        dtype: of the matrices.
        threads: that took part; 0 on a GPU.
    """

    flops_per_s: float
    bytes_per_s: float
    dtype: str
    threads: int


def measured(
    seconds: float = 1.0, *, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> Limits:
    """The limits of the threads that torch uses now, or of a GPU.

    Args:
        seconds: for each of the two; the best repetition counts, since a peak is what nothing
            disturbed.
    """
    side = _SIDE if device == "cpu" else 8 * _SIDE
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    out = torch.empty_like(a)
    product_s = _best(lambda: torch.mm(a, b, out=out), seconds, device)
    source = torch.ones(_BYTES // 4, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    copy_s = _best(lambda: target.copy_(source), seconds, device)
    return Limits(
        flops_per_s=2 * side**3 / product_s,
        bytes_per_s=2 * _BYTES / copy_s,
        dtype=str(dtype).removeprefix("torch."),
        threads=torch.get_num_threads() if device == "cpu" else 0,
    )


def _best(call: Callable[[], Any], seconds: float, device: str) -> float:
    best, ends = float("inf"), time.perf_counter() + seconds
    call()
    while time.perf_counter() < ends or best == float("inf"):
        started = time.perf_counter()
        call()
        if device != "cpu":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return best


def beside(
    limits: Limits, flops_per_s: Mapping[str, float], bytes_per_s: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """``figures.limits`` of a bench: the limits, and the shares of them that were reached.

    Args:
        flops_per_s, bytes_per_s: what the bench counted, by what did it.
    """
    arithmetic = {name: done / limits.flops_per_s for name, done in flops_per_s.items()}
    memory = {name: done / limits.bytes_per_s for name, done in (bytes_per_s or {}).items()}
    return {**asdict(limits), "share_of_flops": arithmetic, "share_of_bytes": memory}
