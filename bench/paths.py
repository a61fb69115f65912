"""Figures in a result by their paths: keys with ``/`` between them, as ``ratios/over_daft``.

``*`` is each of a list, and ``derived/NAME`` what ``bench.derived`` makes of the result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from bench.bars import Spread
from bench.derived import DERIVED


def spread_at(bench: str, result: Mapping[str, Any], path: str) -> Spread | None:
    """The figure at ``path`` of what ``bench`` printed, or None where there is none."""
    kind, _, name = path.partition("/")
    found = _derived(bench, result, name) if kind == "derived" else _at(result, path.split("/"))
    return _spread(found)


def _derived(bench: str, result: Mapping[str, Any], name: str) -> list[float] | None:
    make = DERIVED.get(bench, {}).get(name)
    try:
        return make(result) if make else None
    except KeyError:
        # A side that could not run there is missing from what it is made of.
        return None


def _at(data: Any, keys: Sequence[str]) -> Any:
    for place, key in enumerate(keys):
        if key == "*" and isinstance(data, list):
            return [_at(each, keys[place + 1 :]) for each in data]
        if isinstance(data, Mapping) and key in data:
            data = data[key]
        elif isinstance(data, list) and key.isdigit() and int(key) < len(data):
            data = data[int(key)]
        else:
            return None
    return data


def _spread(found: Any) -> Spread | None:
    if isinstance(found, Mapping) and {"median", "min", "max", "n"} <= found.keys():
        return Spread(found["median"], found["min"], found["max"], found["n"])
    values = found if isinstance(found, list) else [found]
    if not values or any(isinstance(v, bool) or not isinstance(v, (int, float)) for v in values):
        return None
    return Spread(median(values), min(values), max(values), len(values))
