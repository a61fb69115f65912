"""Tables of ``bench.profile`` for the page: seconds by part, processes, stages and bytes."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from bench.bars import number
from bench.tables import markdown

#: Figures of one version of the job, as ``bench.profile.figures_of`` gives them.
Side = Mapping[str, Any]
#: Title of a column, and its cells of one version by the name of the row.
Column = tuple[str, Callable[[Side], Mapping[str, float]]]
#: A part that is shorter than this, in seconds, does not tell how many cores were busy.
_SHORT_S = 0.1
_STAGES = 12


def tables(result: Mapping[str, Any]) -> Iterator[str]:
    """Where the job's seconds and bytes go, of the version before as well where one was run."""
    figures = result["figures"]
    sides: dict[str, Side] = {
        name: figures[name] for name in ("before", "after") if name in figures
    }
    if "before" in sides:
        alike = "the same" if figures["same_rows"] else "**not the same**"
        yield textwrap.fill(
            f"Before is commit `{sides['before']['commit']}`, after `{result['commit']}`; their "
            f"rows are {alike}. Parts of the wall time follow one another; medians of "
            f"{result['settings']['runs']} runs:",
            100,
        )
    else:
        runs = result["settings"]["runs"]
        yield f"Parts of the wall time follow one another; medians of {runs} runs:"
    yield _table("part of the wall time", sides, (("s", _seconds), ("busy cores", _cores)))
    yield "Processes, by kind; memory is what those of a kind held together at most:"
    yield _table("kind of process", sides, (("processor s", _processor), ("peak MiB", _memory)))
    yield f"The {_STAGES} stages inside them that take most processor time:"
    yield _table("stage", sides, (("processor s", _stages), ("calls", _calls)), _STAGES)
    yield "Bytes on their way:"
    yield _table("what", sides, (("MB", _bytes),))


def _seconds(side: Side) -> Mapping[str, float]:
    return {**side["wall_s"], "all": sum(side["wall_s"].values())}


def _cores(side: Side) -> Mapping[str, float]:
    wall, busy = side["wall_s"], side["busy_s"]
    found = {part: busy[part] / wall[part] for part in wall if wall[part] >= _SHORT_S}
    return {**found, "all": sum(busy.values()) / sum(wall.values())}


def _processor(side: Side) -> Mapping[str, float]:
    return {**_most_first(side["cpu_s"]), "all": sum(side["cpu_s"].values())}


def _memory(side: Side) -> Mapping[str, float]:
    return {kind: held / 2**20 for kind, held in side["peak_bytes"].items()}


def _stages(side: Side) -> Mapping[str, float]:
    return _most_first({stage: found["cpu_s"] for stage, found in side["stages"].items()})


def _calls(side: Side) -> Mapping[str, float]:
    return {stage: found["calls"] for stage, found in side["stages"].items()}


def _bytes(side: Side) -> Mapping[str, float]:
    return {what: count / 1e6 for what, count in side["bytes"].items()}


def _most_first(found: Mapping[str, float]) -> dict[str, float]:
    return {name: found[name] for name in sorted(found, key=lambda name: -found[name])}


def _table(
    rows: str, sides: Mapping[str, Side], columns: tuple[Column, ...], most: int | None = None
) -> str:
    """One row for each name in the first column, a cell for each side and column.

    Args:
        rows: title of the names.
        most: rows that are shown; all where it is None.
    """
    _, first = columns[0]
    # The version that is ours says the order; what only the other has comes after.
    named = dict.fromkeys(name for side in reversed(list(sides.values())) for name in first(side))
    names = [name for name in named if name != "all"][:most]
    cells = [
        (f"{title} {which}" if len(sides) > 1 else title, of(side))
        for title, of in columns
        for which, side in sides.items()
    ]
    return markdown(
        [rows, *(title for title, _ in cells)],
        [
            [name, *(number(found[name]) if name in found else "" for _, found in cells)]
            for name in [*names, *(["all"] if "all" in named else [])]
        ],
    )
