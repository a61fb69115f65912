"""``docs/benchmarks.md`` and the figures in other pages, written from ``bench/results/`` alone:
``python -m bench.page``."""

from __future__ import annotations

import ast
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.bars import Bar, Claim, Spread, number, shown
from bench.claims import CLAIMS, claim_of
from bench.kept import Kept, UnknownFigureError, by_bench, read_all
from bench.marks import ROOT, braced, filled, written_by_hand
from bench.names import module_and_model
from bench.sections import SECTIONS, section_of
from bench.sides import Section
from bench.tables import markdown
from infra.modules import first_sentence

PAGE = ROOT / "docs" / "benchmarks.md"

_HEAD = """\
<!-- written by python -m bench.page: change the results or the claims, not this page -->

# Benchmarks

All of this page is written from the files in `bench/results/` by `python -m bench.page`; nothing
is typed by hand, and `make bench-check` fails where a page says otherwise than its file, or a
figure in README or docs has no file behind it. Both sides of a ratio run in turn on the same
machine, on the same inputs; "A over B" is A divided by B. A figure is the median of `n` runs with
the least and the most in brackets; the median decides whether a bar is met. A bar is what is aimed
at; where there is none, its column says how to read the figure.

To see for yourself, in a clone: `make bench` runs the short form of every bench that the machine
can run, in less than half an hour, and writes this page anew with your machine's results in it;
benches that a slow machine has no time left for are named at its end, and it fails.
One bench in full is one command, given beside each figure; it prints the verdict behind each
ratio. The commands need what `make bench` installs into `.venv` (`. .venv/bin/activate`).
"""


def command(bench: str) -> str:
    """What a reader types to have a bench's figures."""
    module, model = module_and_model(bench)
    return f"python -m bench.{module}{f' --model {model}' if model else ''} --json"


def page(kept: Sequence[Kept]) -> str:
    """The page of benchmarks.

    Args:
        kept: as ``read_all`` gives them; the first of a bench is the one that counts.
    """
    benches = by_bench(kept)
    ordered = [each.bench for each in SECTIONS if each.bench in benches or each.absent]
    ordered += sorted(benches.keys() - set(ordered))
    parts = [_HEAD, "## Headline figures", _headlines(benches), *_missed(benches)]
    for bench in ordered:
        section = section_of(bench)
        parts += _section(section, benches[bench]) if bench in benches else _absent(section)
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _claims(kept: Kept) -> Iterator[tuple[Claim, Spread]]:
    """What one result has figures for, in the order of the claims; ratios nobody speaks of last."""
    for claim in CLAIMS:
        found = kept.spread(claim.path) if claim.bench == kept.bench else None
        if found is not None:
            yield claim, found
    for key in kept.data["ratios"]:
        path = f"ratios/{key}"
        found = kept.spread(path)
        if found is not None and claim_of(kept.bench, path) is None:
            yield Claim(kept.bench, path, key.replace("_", " ")), found


def _headlines(benches: Mapping[str, Sequence[Kept]]) -> str:
    rows = [
        [claim.headline, shown(found), *_held(claim, found), f"`{command(bench)}`"]
        for bench in dict.fromkeys(claim.bench for claim in CLAIMS)
        for kept in benches.get(bench, [])[:1]
        for claim, found in _claims(kept)
        if claim.headline
    ]
    return markdown(["figure", "measured", "bar", "verdict", "command"], rows)


def _held(claim: Claim, found: Spread) -> tuple[str, str]:
    if claim.bar is None:
        return f"no bar; {claim.beside}" if claim.beside else "no bar", ""
    verdict = str(claim.bar.verdict(found))
    return str(claim.bar), verdict if verdict.startswith("met") else f"**{verdict}**"


def _missed(benches: Mapping[str, Sequence[Kept]]) -> Iterator[str]:
    """Every bar that is missed by the result that counts, with the reason."""
    yield "## Bars that are missed"
    held = list(_held_to_bars(benches))
    missed = [_why(*each) for each in held if not each[2].clears(each[3].median)]
    if not missed:
        yield f"Figures that have a bar: {len(held)}. None misses it."
        return
    yield f"Figures that have a bar: {len(held)}. These miss it: {len(missed)}."
    yield "\n".join(missed)


def _held_to_bars(
    benches: Mapping[str, Sequence[Kept]],
) -> Iterator[tuple[Kept, Claim, Bar, Spread]]:
    for bench in dict.fromkeys(claim.bench for claim in CLAIMS):
        for kept in benches.get(bench, [])[:1]:
            for claim, found in _claims(kept):
                if claim.bar is not None:
                    yield kept, claim, claim.bar, found


def unexplained(kept: Sequence[Kept]) -> list[Claim]:
    """Claims whose bar is missed by the result that counts and that do not say why."""
    return [
        claim
        for _, claim, bar, found in _held_to_bars(by_bench(kept))
        if not bar.clears(found.median) and not claim.missed
    ]


def _why(kept: Kept, claim: Claim, bar: Bar, found: Spread) -> str:
    reason = braced(claim.missed, kept) if claim.missed else "No reason is on record."
    what = claim.headline or braced(claim.says, kept)
    text = (
        f"- **{what}** (`{kept.bench}`, `{claim.name}`): {shown(found)} "
        f"where the bar is {bar}, {bar.verdict(found)}. {reason}"
    )
    return textwrap.fill(
        text, 100, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def _absent(section: Section) -> Iterator[str]:
    yield f"## {section.title}"
    yield _wrapped(f"{section.absent}: `{command(section.bench)}` makes one.")


def _section(section: Section, kept: Sequence[Kept]) -> Iterator[str]:
    best, *others = kept
    yield f"## {section.title}"
    yield _wrapped(section.about or _docstring(section.bench))
    yield f"`{command(section.bench)}`; {_where(best)}."
    yield from _figures(section, best)
    if section.tables:
        yield from section.tables(best.data)
    sides = [(side, best.spread(side.path)) for side in section.sides]
    beside = [
        [side.name, f"{shown(_scaled(found, side.factor))} {side.unit}".strip().replace(" %", "%")]
        for side, found in sides
        if found is not None
    ]
    if beside:
        yield "The figures behind them:"
        yield markdown(["what", "measured"], beside)
    limit = _limit(section, best)
    if limit:
        yield _wrapped(f"Limit: {limit}.")
    drawn = best.path.with_suffix(".svg")
    if drawn.is_file():
        yield f"![{section.title}, {best.machine}]({_link(drawn)})"
    if best.skipped:
        yield "Not run there:"
        yield "\n".join(f"- `{name}`: {why}" for name, why in best.skipped.items())
    for other in others:
        yield from _elsewhere(other)


def _figures(section: Section, kept: Kept) -> Iterator[str]:
    """The figures of a result, those of no group first and those of each in a table of its own."""
    groups: dict[str, list[list[str]]] = {"": []}
    for claim, found in _claims(kept):
        row = [
            f"`{claim.name}`",
            braced(claim.says, kept),
            shown(found),
            str(found.n),
            *_held(claim, found),
        ]
        groups.setdefault(claim.group, []).append(row)
    for title, rows in groups.items():
        if title:
            yield f"### {title}"
            yield _wrapped(braced(section.groups[title], kept))
        if rows:
            yield markdown(["figure", "what it is", "measured", "n", "bar", "verdict"], rows)


def _elsewhere(kept: Kept) -> Iterator[str]:
    yield f"Elsewhere, {_where(kept)}:"
    rows = [
        [f"`{claim.name}`", shown(found), str(found.n), _held(claim, found)[1]]
        for claim, found in _claims(kept)
    ]
    yield markdown(["figure", "measured", "n", "verdict"], rows)
    drawn = kept.path.with_suffix(".svg")
    if drawn.is_file():
        yield f"[The same as a picture]({_link(drawn)})."


def _where(kept: Kept) -> str:
    machine: Mapping[str, Any] = kept.data["machine"]
    what = machine.get("gpu") or f"{machine['processor']}, {machine['cores']} cores"
    form = "short form" if kept.quick else "in full"
    name = f"{kept.machine}/{kept.path.name}"
    return f"{what}, {form}, commit `{kept.data['commit']}`, [{name}]({_link(kept.path)})"


def _link(path: Path) -> str:
    return f"../bench/results/{path.parent.name}/{path.name}"


def _scaled(found: Spread, factor: float) -> Spread:
    middle, least, most = (each * factor for each in (found.median, found.least, found.most))
    return Spread(middle, least, most, found.n)


def _limit(section: Section, kept: Kept) -> str:
    """What bounds the figures: shares that the bench reckoned itself, or what the section names;
    empty where nothing of the machine does."""
    figures = kept.data["figures"]
    own = figures.get("limits") or figures.get("training", {}).get("limits")
    said = []
    if section.limit:
        found = kept.spread(section.limit_at.path) if section.limit_at else None
        value = f"{shown(found)} {section.limit_at.unit}" if found and section.limit_at else "?"
        said.append(section.limit.format(value))
    if own and "flops_per_s" in own:
        said.append(_shares(own))
    elif section.reckons:
        said.append("what this machine does at most was not measured in this run")
    return "; ".join(said)


def _shares(own: Mapping[str, Any]) -> str:
    where = f"{own['threads']} thread{'s' * (own['threads'] != 1)}" if own["threads"] else "the GPU"
    text = (
        f"measured in the same run, a matrix product of {own['dtype']} on {where} does "
        f"{number(own['flops_per_s'] / 1e9)} GFLOP/s and a copy "
        f"{number(own['bytes_per_s'] / 1e9)} GB/s (reads and writes)"
    )
    shares = [
        f"`{name}` {share:.0%} of the {what}"
        for key, what in (("share_of_flops", "arithmetic"), ("share_of_bytes", "memory's speed"))
        for name, share in own[key].items()
    ]
    return f"{text}, of which are reached, at least: {', '.join(shares)}" if shares else text


def _docstring(bench: str) -> str:
    source = Path(__file__).parent / f"{bench}.py"
    if not source.is_file():
        return ""
    return first_sentence(ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or "")


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)


def main() -> int:
    """Write the page, and the figures in the others."""
    kept = read_all()
    try:
        texts = {PAGE: page(kept)}
        for path in written_by_hand():
            texts[path] = filled(path.read_text(encoding="utf-8"), kept)
    except (UnknownFigureError, ValueError) as failure:
        print(f"bench.page: {failure}", file=sys.stderr)
        return 1
    for path, text in texts.items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
