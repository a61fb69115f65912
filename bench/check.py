"""Whether every figure in README and docs is what a kept result says: ``python -m bench.check``.

Generated pages and plots must be what the results give now. In pages written by hand, what reads
like a measurement must be marked (``bench.marks``) or allowed with a reason (``bench.allowed``).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

from bench import capacity
from bench.allowed import ALLOWED, Allowed
from bench.kept import Kept, UnknownFigureError, read_all
from bench.marks import ROOT, filled, without, written_by_hand
from bench.measured import NotMeasuredError
from bench.page import PAGE, page, unexplained

_UNITS = (
    r"(?:ms|µs|s|seconds?|minutes?|hours?|[kKMG]i?B|x|times|frames?/s|fps|[GT]B/s"
    r"|[GT]FLOPs?)"
)
_THINGS = r"(?:frames?|pictures?|streams?|sessions?|calls|requests|videos?|tokens|clips)"
#: What reads like a measurement: a number with a unit, a share, a rate, a decimal fraction, or a
#: word that compares.
_CLAIM = re.compile(
    rf"""
    (?<![\w.,/-]) \d[\d.,]*
        (?: \s?% | \s?\u00d7(?!\s?\d) | \s?{_UNITS}\b(?!\s\d) | \s{_THINGS}\s(?:a|per)\s\w+ )
    | (?<![\w.]) 0?\.\d+ \b (?!\.\d)
    | \b(?:\d[\d.]*|two|three|four|five|ten|hundred)\s(?:times|fold)\b
    | \b(?:faster|slower|cheaper)\b
    | \b(?:twice|half)\s(?:as|the|of\sthe)\s(?:\w+\s)?(?:time|fast|much|memory|cost)\b
    | \bhalf\sa\s(?:milli)?second\b
    | \b(?:a|one)\s(?:third|quarter|fifth|tenth|hundredth)\s(?:of|to)\b
    """,
    re.VERBOSE | re.IGNORECASE,
)
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def plain(text: str) -> str:
    """The sentences and tables of a page on one line: no figures of results, no fenced code, no
    code within sentences, no targets of links."""
    text = _FENCED.sub("", without(text))
    text = re.sub(r"`[^`]+`", "`code`", text)
    text = re.sub(r"\]\([^()]*\)", "]", text)
    return " ".join(text.split())


def unbacked(name: str, text: str, allowed: Sequence[Allowed] = ALLOWED) -> Iterator[str]:
    """What in a page reads like a measurement and is neither marked nor allowed; and what is
    allowed there and is not there any more.

    Args:
        name: of the page, from the checkout's root.
    """
    line = plain(text)
    spans = []
    for each in allowed:
        if each.page == name:
            found = [match.span() for match in re.finditer(each.words, line)]
            spans += found
            if not found:
                yield f"{name}: bench/allowed.py allows {each.words!r}, which is not there"
    for match in _CLAIM.finditer(line):
        if not any(start <= match.start() and match.end() <= end for start, end in spans):
            around = line[max(0, match.start() - 40) : match.end() + 30]
            yield f"{name}: no result behind {match[0]!r} in: …{around}…"


def stale(path: Path, wanted: str, how: str) -> Iterator[str]:
    """Whether a file is not what it should be."""
    name = path.relative_to(ROOT)
    if not path.is_file():
        yield f"{name} is not there: run {how}"
    elif path.read_text(encoding="utf-8") != wanted:
        yield f"{name} is not what the results give: run {how}"


def wrong_pages(kept: Sequence[Kept]) -> Iterator[str]:
    """All that is wrong with the pages."""
    try:
        yield from stale(PAGE, page(kept), "python -m bench.page")
    except UnknownFigureError as failure:
        yield f"docs/benchmarks.md: {failure}"
    for claim in unexplained(kept):
        yield f"bench.{claim.bench}: {claim.name} misses its bar, and bench/claims.py says not why"
    for path in written_by_hand():
        text, name = path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix()
        try:
            yield from stale(path, filled(text, kept), "python -m bench.page")
        except (UnknownFigureError, ValueError) as failure:
            yield f"{name}: {failure}"
        yield from unbacked(name, text)
    path = ROOT / "docs" / "capacity.md"
    try:
        wanted = capacity.refreshed(path.read_text(encoding="utf-8"))
    except NotMeasuredError as failure:
        yield f"docs/capacity.md: {failure}"
    else:
        yield from stale(path, wanted, "python -m bench.capacity --page docs/capacity.md")


def wrong_plots(kept: Sequence[Kept]) -> Iterator[str]:
    """Plots that do not show their results. Needs matplotlib."""
    from bench.plots import drawn

    for each in kept:
        svg = drawn(each.path)
        path = each.path.with_suffix(".svg")
        if svg is None:
            continue
        if not path.is_file() or not same_picture(path.read_text(encoding="utf-8"), svg):
            yield f"{path.relative_to(ROOT)} does not show its result: run python -m bench.plots"


def same_picture(one: str, other: str) -> bool:
    """Whether two SVGs show the same: names of parts aside, and digits that no eye tells apart,
    as another processor or version of matplotlib may make them."""
    one, other = (_comparable(text) for text in (one, other))
    if _NUMBER.sub("0", one) != _NUMBER.sub("0", other):
        return False
    pairs = zip_longest(_NUMBER.findall(one), _NUMBER.findall(other), fillvalue="inf")
    return all(abs(float(a) - float(b)) <= 0.01 for a, b in pairs)


def _comparable(svg: str) -> str:
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return re.sub(r"(?<=[a-z_])[0-9a-f]{10}\b", "part", svg)


def main() -> int:
    """The command: 1 and a line for each thing that is wrong."""
    kept = read_all()
    wrong = list(wrong_pages(kept))
    try:
        wrong += wrong_plots(kept)
    except ImportError as failure:
        wrong.append(f"plots were not looked at: {failure}")
    for each in wrong:
        print(f"bench.check: {each}", file=sys.stderr)
    if not wrong:
        print(f"pages and plots say what {len(kept)} results in bench/results/ say")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
