"""Results for tests of what is made of results: small ones, in a folder of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def ratio(*values: float) -> dict[str, float]:
    """As benches print one; the first value is the median."""
    return {"median": values[0], "min": min(values), "max": max(values), "n": len(values)}


def keep(
    results: Path,
    machine: str,
    bench: str,
    ratios: dict[str, Any],
    *,
    quick: bool | None = None,
    file: str = "",
    figures: dict[str, Any] | None = None,
    **settings: Any,
) -> Path:
    """Write a result; one with ``quick`` None is from before results said so."""
    if quick is not None:
        settings["quick"] = quick
    folder = results / machine
    folder.mkdir(exist_ok=True)
    path = folder / (file or f"{bench}.json")
    result = {
        "bench": bench,
        "machine": {"processor": "A processor", "cores": 2},
        "commit": "abc",
        "settings": settings,
        "ratios": ratios,
        "figures": figures or {},
    }
    path.write_text(json.dumps(result))
    return path
