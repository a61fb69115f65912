"""The results that are kept: which there are, which of them counts, and figures in them by path."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.bars import Spread
from bench.harness import RESULTS, is_quick
from bench.paths import spread_at


class UnknownFigureError(Exception):
    """No result has the figure that is asked for."""


@dataclass(frozen=True)
class Kept:
    """One result file.

    Attributes:
        machine: the folder it lies in.
        quick: it was made with ``--quick``; those from before results said so are full.
        data: all that the bench printed.
    """

    machine: str
    bench: str
    quick: bool
    path: Path
    data: Mapping[str, Any]

    def spread(self, path: str) -> Spread | None:
        """The figure at ``path``, or None where this result has none there.

        Args:
            path: as ``bench.paths`` reads it.
        """
        return spread_at(self.bench, self.data, path)

    @property
    def skipped(self) -> dict[str, str]:
        """What could not run there, with the reasons."""
        found: dict[str, str] = self.data["figures"].get("skipped", {})
        return found


def read_all(results: Path = RESULTS) -> list[Kept]:
    """Every result, those that count most first: full before quick, then those of the machine
    that has most full ones, so that figures come from one machine where they can.
    """
    found = list(_read(results))
    full = {kept.machine: 0 for kept in found}
    for kept in found:
        full[kept.machine] += not kept.quick
    return sorted(found, key=lambda kept: (kept.quick, -full[kept.machine], kept.machine))


def _read(results: Path) -> Iterator[Kept]:
    for path in sorted(results.glob("*/*.json")):
        data = json.loads(path.read_text())
        # A result without ratios is of a bench that could not run there.
        if data["ratios"]:
            yield Kept(path.parent.name, data["bench"], is_quick(data), path, data)


def by_bench(kept: Sequence[Kept]) -> dict[str, list[Kept]]:
    """Results of each bench, in the order of ``kept``."""
    found: dict[str, list[Kept]] = {}
    for each in kept:
        found.setdefault(each.bench, []).append(each)
    return found


def figure(kept: Sequence[Kept], bench: str, path: str) -> Spread:
    """A figure of the result of ``bench`` that counts most.

    Raises:
        UnknownFigureError: there is no result of it, or the one that counts has no such figure.
    """
    for each in kept:
        if each.bench == bench:
            found = each.spread(path)
            if found is None:
                raise UnknownFigureError(f"{each.machine}/{each.path.name} has no {path}")
            return found
    raise UnknownFigureError(f"there is no result of bench.{bench}")
