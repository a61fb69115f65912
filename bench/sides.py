"""What a section of the page of benchmarks is made of: its text, groups of figures, both sides."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Side:
    """One side's own figure.

    Attributes:
        path: as ``bench.kept`` reads it.
        factor: from the figure to ``unit``.
    """

    name: str
    path: str
    unit: str
    factor: float = 1.0


@dataclass(frozen=True)
class Section:
    """One bench on the page.

    Attributes:
        about: what is measured, and against what.
        limit: what bounds the figures beside what the bench itself reckons; ``{}`` is its figure.
        limit_at: of that figure.
        reckons: the bench measures what the machine can do at most, and a result that has it not
            is to say so.
        groups: what stands above each group of figures; figures in it as in ``Claim.missed``.
        tables: more that is to be shown of a result.
        absent: what is said where there is no result, without its full stop; empty where the
            section is then left out.
    """

    bench: str
    title: str
    about: str
    sides: tuple[Side, ...] = ()
    limit: str = ""
    limit_at: Side | None = None
    reckons: bool = False
    groups: Mapping[str, str] = field(default_factory=dict)
    tables: Callable[[Mapping[str, Any]], Iterator[str]] | None = None
    absent: str = ""


def sides(unit: str, path: str, names: dict[str, str], factor: float = 1.0) -> tuple[Side, ...]:
    """Sides whose paths differ in one key, by that key."""
    return tuple(
        Side(shown, path.replace("KEY", key), unit, factor) for key, shown in names.items()
    )
