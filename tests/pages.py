"""The documentation as data: what a page of Markdown links to, and which commands it names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from typer.core import TyperGroup

_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`]+)`")
_LINK = re.compile(r"\]\(([^()\s]+)\)|^\[[\w.-]+\]:\s+(\S+)$", re.MULTILINE)
_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*$", re.MULTILINE)
#: Where a command may stand, up to what ends it: a pipe, a redirection, the end of a substitution.
_COMMAND = re.compile(
    r"(?:^|\| |\$\(|&& )(?:\$ )?(?:\w+=\S* )*(?:\S*/)?longreel (?! )((?:(?! \| )[^\n#>;&()])+)",
    re.MULTILINE,
)
_MAKE = re.compile(r"(?:^|\s)make ([a-z][a-z-]*)")
_MODULE = re.compile(r"python -m ([a-z]\w*(?:\.\w+)+)")
_WORD = re.compile(r"[a-z][a-z-]*")


@dataclass(frozen=True)
class Page:
    """One page of Markdown.

    Attributes:
        path: where it lies; its links are relative to this.
        text: all of it.
    """

    path: Path
    text: str

    @cached_property
    def blocks(self) -> list[str]:
        """Its fenced code that a shell runs, each command on one line, without comments."""
        return [
            re.sub(r"(?:^|(?<=\s))#.*", "", re.sub(r"\\\n\s*", " ", code), flags=re.MULTILINE)
            for code in (*self.fenced(""), *self.fenced("sh"))
        ]

    def fenced(self, language: str) -> list[str]:
        """Its fenced code in ``language``, as it stands."""
        return [code for named, code in _FENCED.findall(self.text) if named == language]

    @cached_property
    def prose(self) -> str:
        """All of it but fenced code."""
        return _FENCED.sub("", self.text)

    @property
    def spans(self) -> list[str]:
        """Code within its sentences."""
        return [" ".join(span.split()) for span in _SPAN.findall(self.prose)]

    @property
    def code(self) -> list[str]:
        """All code that may be a command."""
        return [*self.blocks, *self.spans]

    @property
    def links(self) -> list[str]:
        """Where it links to, but for other sites."""
        prose = _SPAN.sub("", self.prose)
        found = [inline or defined for inline, defined in _LINK.findall(prose)]
        return [target for target in found if not re.match(r"[a-z]+:", target)]

    @property
    def anchors(self) -> set[str]:
        """The names of its headings, as GitHub makes them."""
        names: set[str] = set()
        for heading in _HEADING.findall(self.prose):
            shown = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
            name = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
            count = sum(1 for other in names if re.fullmatch(rf"{re.escape(name)}(-\d+)?", other))
            names.add(f"{name}-{count}" if count else name)
        return names

    @property
    def make_targets(self) -> set[str]:
        """Targets that it says to make."""
        return {target for code in self.code for target in _MAKE.findall(code)}

    @property
    def modules(self) -> set[str]:
        """Modules that it says to run."""
        return {module for code in self.code for module in _MODULE.findall(code)}

    @property
    def options(self) -> set[str]:
        """Options that its sentences name."""
        return {m[0] for span in self.spans if (m := re.match(r"--[a-z][a-z0-9-]*", span))}

    @property
    def commands(self) -> Iterator[list[str]]:
        """Words of each use of ``longreel``, from the command's name on."""
        for code in self.code:
            for line in _COMMAND.findall(code):
                yield from _spelled_out(line.split())


def read_page(path: Path) -> Page:
    """The page at ``path``."""
    return Page(path, path.read_text(encoding="utf-8"))


def broken_links(page: Page) -> list[str]:
    """Links of a page that lead to no file, or to no heading of theirs."""
    broken = []
    for link in page.links:
        name, _, anchor = link.partition("#")
        target = (page.path.parent / name).resolve() if name else page.path
        known = target.exists()
        if known and anchor:
            known = target.suffix == ".md" and anchor in read_page(target).anchors
        if not known:
            broken.append(link)
    return broken


def unknown_uses(words: list[str], program: TyperGroup) -> list[str]:
    """What of ``longreel WORDS`` the program does not have: a command, or options of it."""
    command: Any = program
    rest = list(words)
    while isinstance(command, TyperGroup) and rest and not rest[0].startswith("-"):
        found = command.commands.get(rest[0])
        if found is None:
            return [f"longreel {' '.join(words)}: no command {rest[0]!r}"]
        command = found
        rest.pop(0)
    known = {"--help"}.union(*(p.opts + p.secondary_opts for p in command.params))
    return [
        f"longreel {' '.join(words)}: no option {word!r}"
        for word in (r.partition("=")[0].strip("'\"],.") for r in rest)
        if re.fullmatch(r"--?[a-z][a-z-]*", word) and word not in known
    ]


def _spelled_out(words: list[str]) -> Iterator[list[str]]:
    """Commands that a page writes as one, ``jobs list|status``, apart."""
    choice = next((i for i, w in enumerate(words) if re.fullmatch(r"[a-z]+(\|[a-z]+)+", w)), None)
    if choice is not None:
        for word in words[choice].split("|"):
            yield [*words[:choice], word, *words[choice + 1 :]]
    elif words and (words[0].startswith("-") or _WORD.fullmatch(words[0])):
        yield words
