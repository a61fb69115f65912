"""The list of modules in ``docs/architecture.md``, out of their docstrings: ``python -m
infra.modules``."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "architecture.md"
#: From the floor that everybody uses to those that use the others.
PACKAGES = ("longreel", "mod", "actors", "pipelines", "serve", "infra", "bench")
BEGIN = "<!-- modules: written by python -m infra.modules -->"
END = "<!-- modules: end -->"


def first_sentence(docstring: str) -> str:
    """The first sentence of a docstring as one line of Markdown.

    Raises:
        ValueError: it has none.
    """
    paragraph = " ".join(docstring.strip().split("\n\n", 1)[0].split())
    sentence = re.match(r".+?[.](?=\s+[A-Z`*]|$)", paragraph)
    if sentence is None:
        raise ValueError(f"no sentence: {paragraph!r}")
    return sentence[0].replace("``", "`").replace("|", r"\|")


def listing(root: Path = ROOT) -> str:
    """The list as Markdown: a heading and a table a folder, a line a module.

    Args:
        root: the checkout.

    Raises:
        ValueError: a module or folder does not say what it is; names the file.
    """
    parts = []
    for package in PACKAGES:
        for init in sorted((root / package).rglob("__init__.py")):
            rows = [
                f"| `{path.stem}` | {_line(path)} |"
                for path in sorted(init.parent.glob("*.py"))
                if path != init
            ]
            name = init.parent.relative_to(root).as_posix()
            parts.append(f"### {name}/\n\n{_line(init)}")
            if rows:
                parts.append("\n".join(["| module | what it is |", "|---|---|", *rows]))
    return "\n\n".join(parts)


def with_listing(page: str, listed: str) -> str:
    """A page with ``listed`` between its marks.

    Raises:
        ValueError: the page does not have each mark once, in order.
    """
    before, begun, rest = page.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not (begun and ended) or BEGIN in rest or END in after:
        raise ValueError(f"the page needs {BEGIN!r} and then {END!r}, once each")
    return f"{before}{BEGIN}\n\n{listed}\n\n{END}{after}"


def _line(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    try:
        return first_sentence(docstring or "")
    except ValueError as failure:
        raise ValueError(f"{path.relative_to(path.parents[1])}: {failure}") from None


def main() -> None:
    """Write the list into the page."""
    try:
        text = with_listing(PAGE.read_text(encoding="utf-8"), listing())
    except ValueError as failure:
        sys.exit(f"modules: {failure}")
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
