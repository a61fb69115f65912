"""Who reads the code is told what each name is, and of each test what it guards against."""

from __future__ import annotations

import ast
import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_floors import PACKAGES, ROOT

_Named = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
MODULES = [path for name in sorted(PACKAGES) for path in sorted((ROOT / name).rglob("*.py"))]
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))


def unsaid(tree: ast.Module | ast.ClassDef, inside: str = "") -> Iterator[str]:
    """Public names of a module, with those in its classes, that have no docstring.

    Left out are a protocol's bare ``...``, of which its class tells, setters, and what files do.
    """
    for node in tree.body:
        if not isinstance(node, _Named) or node.name.startswith("_"):
            continue
        decorators = {ast.unparse(each).rpartition(".")[-1] for each in node.decorator_list}
        if ast.get_docstring(node) is None and not (
            ast.unparse(node.body[0]) == "..."
            or decorators & {"setter", "overload"}
            or (inside and hasattr(io.RawIOBase, node.name))
        ):
            yield f"{inside}{node.name}"
        if isinstance(node, ast.ClassDef):
            yield from unsaid(node, f"{inside}{node.name}.")


def unguarded(tree: ast.Module) -> list[str]:
    """Tests that do not say what they guard against, in a module that does not say it for them."""
    if "uards" in (ast.get_docstring(tree) or ""):
        return []
    return [
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and ast.get_docstring(node) is None
    ]


def _named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.slow
@pytest.mark.parametrize("path", MODULES, ids=_named)
def test_every_public_name_says_what_it_is(path: Path) -> None:
    """Guards against a name whose units, shapes and errors only its code tells."""
    assert not list(unsaid(ast.parse(path.read_text())))


@pytest.mark.slow
@pytest.mark.parametrize("path", TESTS, ids=_named)
def test_every_test_says_what_it_guards_against(path: Path) -> None:
    """Guards against a test of which nobody dares to say that it is not needed any more."""
    assert not unguarded(ast.parse(path.read_text()))


def test_what_says_nothing_is_found() -> None:
    """Guards against checks that find nothing because they look at nothing."""
    code = '''
class Said:
    """One."""
    def unsaid(self): pass
    def _private(self): pass
    @property
    def bare(self): ...
    def read(self): pass
async def also_unsaid(): pass
def test_plain(): pass
def test_said():
    """Guards."""
'''
    tree = ast.parse(code)
    assert list(unsaid(tree)) == ["Said.unsaid", "also_unsaid", "test_plain"]
    assert unguarded(tree) == ["test_plain"]
    assert unguarded(ast.parse(f'"""Each guards."""\n{code}')) == []
