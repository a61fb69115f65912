"""What memory there is for weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from mod.weights import available_bytes

MACHINE = 2**40


@pytest.mark.parametrize(
    ("limit", "used", "files", "free"),
    [
        ("max", 5_000, 1_000, MACHINE),
        ("8000", 5_000, 1_000, 4_000),
        ("8000", 9_000, 0, 0),
        (str(2 * MACHINE), 0, 0, MACHINE),
        (None, 0, 0, MACHINE),
    ],
)
def test_a_containers_limit_counts(
    tmp_path: Path, limit: str | None, used: int, files: int, free: int
) -> None:
    """Guards a small container on a large machine: loading a model would have it killed."""
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(f"MemTotal: {MACHINE} kB\nMemAvailable: {MACHINE // 1024} kB\n")
    if limit is not None:
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        (tmp_path / "memory.current").write_text(f"{used}\n")
        (tmp_path / "memory.stat").write_text(f"anon 17\ninactive_file {files}\n")
    assert available_bytes(tmp_path, meminfo) == free


def test_where_nobody_says_nothing_is_known(tmp_path: Path) -> None:
    """Guards other systems: a model is not refused for want of a figure."""
    assert available_bytes(tmp_path, tmp_path / "meminfo") is None
