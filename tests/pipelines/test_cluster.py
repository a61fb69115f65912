"""How many processors a cluster that is started here is told that it has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipelines.cluster import cores

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
