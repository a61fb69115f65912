"""The documentation says nothing that is not so: links, commands, options, files, modules."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import typer.main
from typer.core import TyperGroup

from infra.modules import BEGIN, END, PAGE, first_sentence, listing, with_listing
from longreel.cli import app
from longreel.schemas import SEGMENTS, VIDEOS
from mod.recipe import recipe_of
from tests.pages import broken_links, read_page, unknown_uses
from tests.test_floors import PACKAGES

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
#: Folders whose files pages name; what a user makes there is not in a checkout.
_FILE = re.compile(rf"(?:{'|'.join(sorted(PACKAGES))}|docs|tests)/[\w./-]+")
_MADE_BY_USERS = {"infra/s3.env"}

pages = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)


def _program() -> TyperGroup:
    program = typer.main.get_command(app)
    assert isinstance(program, TyperGroup)
    return program


@pages
def test_every_link_leads_somewhere(path: Path) -> None:
    """Guards against pages and headings that were renamed under those who link to them."""
    assert not broken_links(read_page(path))


@pages
def test_every_command_of_ours_is_there_with_its_options(path: Path) -> None:
    """Guards against a reader who types what a page says and is told that it is wrong."""
    program = _program()
    wrong = [use for words in read_page(path).commands for use in unknown_uses(words, program)]
    assert not wrong


@pages
def test_what_a_page_says_to_make_and_run_is_there(path: Path) -> None:
    """Guards against targets and modules that were renamed under those who read of them."""
    page = read_page(path)
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert page.make_targets <= targets
    missing = {
        module
        for module in page.modules
        if module.split(".")[0] in PACKAGES
        and not (ROOT / (module.replace(".", "/") + ".py")).is_file()
    }
    assert not missing


@pages
def test_every_option_and_file_that_a_sentence_names_is_there(path: Path) -> None:
    """Guards against sentences about what was renamed or taken out."""
    sources = [file.read_text() for name in PACKAGES for file in (ROOT / name).rglob("*.py")]
    options = {option for text in sources for option in re.findall(r'"(--[a-z][a-z0-9-]*)"', text)}
    commands: list[Any] = [_program()]
    for command in commands:
        commands += command.commands.values() if isinstance(command, TyperGroup) else ()
        options |= {o for p in command.params for o in p.opts}
    page = read_page(path)
    assert page.options <= options
    files = {span for span in page.spans if _FILE.fullmatch(span)} - _MADE_BY_USERS
    assert not {file for file in files if not (ROOT / file).exists()}


def test_every_column_and_option_of_a_job_is_on_its_page() -> None:
    """Guards against a column or an option that only who reads the code finds."""
    page = (ROOT / "docs" / "bulk.md").read_text()
    columns = {name for schema in (SEGMENTS, VIDEOS) for name in schema.names}
    assert not {name for name in columns if f"`{name}`" not in page}
    inner = {
        field.name
        for schema in (SEGMENTS, VIDEOS)
        for column in schema
        for field in (column.type.value_type if isinstance(column.type, pa.ListType) else ())
    }
    assert not {name for name in inner if f"`{name}`" not in page}
    command = _program().commands["summarize"]
    options = {max(p.opts, key=len) for p in command.params if p.opts[0].startswith("--")}
    assert len(options) > 10
    assert not options - read_page(ROOT / "docs" / "bulk.md").options - {"--help"}


@pages
def test_every_example_is_python_or_a_recipe(path: Path) -> None:
    """Guards against fields of a recipe that were renamed, and against slips of the pen."""
    page = read_page(path)
    for code in page.fenced("python"):
        ast.parse(code)
    for code in page.fenced("toml"):
        recipe_of(tomllib.loads(code), path.name)


def test_every_promise_names_tests_that_are_there() -> None:
    """Guards against promises that nothing holds us to."""
    tables = re.findall(
        r"^\| promised \|.*\n\|[-|]+\n((?:\|.*\n)+)",
        (ROOT / "docs" / "promises.md").read_text(),
        re.MULTILINE,
    )
    rows = [row for table in tables for row in table.splitlines()]
    assert rows
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)`", row.rstrip("| ").rsplit("|", 1)[-1])
        assert named, f"no test: {row}"
        assert not [test for test in named if not (ROOT / test).is_file()], row


@pytest.mark.slow
def test_the_list_of_modules_is_the_modules() -> None:
    """Guards against a list that others forget: ``python -m infra.modules`` writes it."""
    page = PAGE.read_text()
    assert with_listing(page, listing()) == page, "stale: run python -m infra.modules"


def test_a_module_that_says_nothing_of_itself_is_named(tmp_path: Path) -> None:
    """Guards against an empty line in the list, and a page cut up where its marks are gone."""
    (tmp_path / "mod").mkdir()
    (tmp_path / "mod" / "__init__.py").write_text('"""The model. More."""\n')
    silent = tmp_path / "mod" / "silent.py"
    silent.write_text("x = 1\n")
    with pytest.raises(ValueError, match=r"mod/silent\.py"):
        listing(tmp_path)
    silent.write_text('"""One | two: ``x.y``, said.\n\nMore."""\n')
    listed = listing(tmp_path)
    assert "### mod/\n\nThe model.\n" in listed
    assert r"| `silent` | One \| two: `x.y`, said. |" in listed
    with pytest.raises(ValueError, match="once each"):
        with_listing(f"{BEGIN}\n", listed)
    assert with_listing(f"a\n{BEGIN}\nold\n{END}\nb\n", listed).count(listed) == 1


def test_a_sentence_ends_where_it_ends() -> None:
    """Guards against half sentences in the list of modules."""
    assert first_sentence("Reads 3.5 pages of ``a.b``, e.g. two. More.") == (
        "Reads 3.5 pages of `a.b`, e.g. two."
    )


def test_pages_that_are_wrong_are_found_out(tmp_path: Path) -> None:
    """Guards against checks that find nothing because they look at nothing."""
    (tmp_path / "other.md").write_text(
        "# A `title`, [linked](x.md)\n\n```\n# none\n```\n## Twice\n## Twice\n"
    )
    text = (
        "[a](other.md#a-title-linked) [b](other.md#none) [c](gone.md) [d](#here) [e][f]\n"
        "[g](other.md#twice-1) `[no](link)` [h](https://x.test/y#z)\n\n[f]: gone.md\n\n## Here\n"
        "`longreel jobs list|stop`, `make sense`, `--nothing 1`, `python -m infra.gone`\n"
        "```sh\nX=1 longreel show rows \\\n  --nothing | longreel summarise -\n"
        "ID=$(longreel submit a --output b -x)  # longreel no\nmake demo\n"
        "kubectl -n longreel get x longreel -w\n```\n"
    )
    (tmp_path / "page.md").write_text(text)
    page = read_page(tmp_path / "page.md")
    assert broken_links(page) == ["other.md#none", "gone.md", "gone.md"]
    program = _program()
    wrong = [use for words in page.commands for use in unknown_uses(words, program)]
    assert sorted(use.split(": ")[-1] for use in wrong) == [
        "no command 'stop'",
        "no command 'summarise'",
        "no option '--nothing'",
        "no option '-x'",
    ]
    assert page.make_targets == {"sense", "demo"}
    assert page.options == {"--nothing"}
    assert page.modules == {"infra.gone"}
