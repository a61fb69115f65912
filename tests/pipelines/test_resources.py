"""What a cluster that is started here has, and what would be waited for without a word."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipelines.resources import cores, lacking

ALLOWED = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("quota", "most"),
    [
        ("max 100000", ALLOWED),
        ("100000 100000", 1),
        ("50000 100000", 1),
        ("6400000 100000", 64),
        (None, ALLOWED),
    ],
)
def test_a_containers_limit_counts(tmp_path: Path, quota: str | None, most: int) -> None:
    """Guards a small container on a large machine: a worker for each of its cores fills it up."""
    file = tmp_path / "cpu.max"
    if quota is not None:
        file.write_text(f"{quota}\n")
    assert cores(file) == min(ALLOWED, most)


@pytest.mark.parametrize(
    ("count", "gpus", "beside", "have", "said"),
    [
        (2, 0.0, 0, {"CPU": 6.0}, None),
        (8, 0.0, 0, {"CPU": 6.0}, "8 need 8 CPUs, there are 6"),
        (5, 0.0, 2, {"CPU": 6.0}, "5 and what works beside them need 7 CPUs, there are 6"),
        (1, 1.0, 2, {"CPU": 6.0}, "1 need 1 GPUs, there are 0"),
        (3, 0.5, 0, {"CPU": 6.0, "GPU": 1.0}, "3 need 1.5 GPUs, there are 1"),
        (4, 1.0, 2, {"CPU": 64.0, "GPU": 4.0}, None),
    ],
)
def test_what_is_lacking_is_told(
    count: int, gpus: float, beside: int, have: dict[str, float], said: str | None
) -> None:
    """Guards against a command that waits for ever for what never comes."""
    assert lacking(count, gpus, have, beside=beside) == said
