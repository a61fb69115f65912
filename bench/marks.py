"""Figures within pages that are written by hand: marked, and filled in from the kept results.

``<!-- figure: BENCH PATH as FORMAT -->SHOWN<!-- /figure -->`` is a figure's median in a format of
Python's, ``as FORMAT spread`` the same with its bounds; ``<!-- table: NAME -->`` up to ``<!--
/table -->`` a table of ``bench.tables``. Marks are comments: readers see what stands between them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.bars import Spread
from bench.kept import Kept, UnknownFigureError, figure
from bench.tables import TABLES

ROOT = Path(__file__).parent.parent
#: The model's card, beside the pages.
CARD = ROOT / "mod" / "checkpoints" / "longreel-tiny" / "README.md"

_FORMAT = r"as (?P<format>[^\s}]+)(?P<spread> spread)?"
_MARK = re.compile(
    rf"<!-- figure: (?P<bench>\w+) (?P<path>[^>]+?) {_FORMAT} -->(?P<shown>.*?)<!-- /figure -->",
    re.DOTALL,
)
_TABLE = re.compile(r"<!-- table: (?P<name>\w+) -->\n.*?<!-- /table -->", re.DOTALL)
_BRACED = re.compile(rf"\{{(?P<path>[^{{}}]+?) {_FORMAT}\}}")
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)


def written_by_hand(root: Path = ROOT) -> list[Path]:
    """The pages whose figures are marked: README, docs and the model's card."""
    docs = [path for path in sorted((root / "docs").glob("*.md")) if path.name != "benchmarks.md"]
    return [root / "README.md", *docs, root / CARD.relative_to(ROOT)]


def filled(page: str, kept: Sequence[Kept]) -> str:
    """A page with every marked figure and table as the results have them.

    Raises:
        UnknownFigureError: no result has one of them.
        ValueError: a mark is not closed, or written otherwise than marks are.
    """

    def fill(mark: re.Match[str]) -> str:
        found = figure(kept, mark["bench"], mark["path"])
        opening = mark[0][: mark.start("shown") - mark.start()]
        return f"{opening}{_formatted(found, mark)}<!-- /figure -->"

    def draw(mark: re.Match[str]) -> str:
        name = mark["name"]
        if name not in TABLES:
            raise UnknownFigureError(f"there is no table {name!r} in bench/tables.py")
        return f"<!-- table: {name} -->\n\n{TABLES[name](kept)}\n\n<!-- /table -->"

    wrong = re.search(r"<!-- /?(?:figure|table).*", _TABLE.sub("", _MARK.sub("", page)))
    if wrong:
        raise ValueError(f"no mark is written like this: {wrong[0][:90]}")
    first = re.search(r"^ *(?:[-*>] +)*<!-- figure.*", page, re.MULTILINE)
    if first:
        # Markdown takes a line that begins with a comment out of its paragraph.
        raise ValueError(f"a mark must not come first in its line: {first[0][:90]}")
    return _TABLE.sub(draw, _MARK.sub(fill, page))


def braced(text: str, kept: Kept) -> str:
    """A sentence whose figures, ``{PATH as FORMAT}``, are those of one result; what it does not
    have, as where a side could not run, is said to be not measured."""

    def fill(mark: re.Match[str]) -> str:
        found = kept.spread(mark["path"])
        return "(not measured)" if found is None else _formatted(found, mark)

    return _BRACED.sub(fill, text)


def without(page: str) -> str:
    """A page without what is filled in and without comments."""
    return _COMMENT.sub("", _TABLE.sub("", _MARK.sub("(figure)", page)))


def _formatted(found: Spread, mark: re.Match[str]) -> str:
    one: Callable[[float], str] = ("{:" + mark["format"] + "}").format
    middle = one(found.median)
    return f"{middle} ({one(found.least)} to {one(found.most)})" if mark["spread"] else middle
