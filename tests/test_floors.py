"""The house's floors: each package imports only what lies below it."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
#: What each package may import of the project; ``longreel`` splits in ground floor and roof.
BELOW = {
    "ground": {"ground"},
    "mod": {"ground", "mod"},
    "actors": {"ground", "mod", "actors"},
    "serve": {"ground", "mod", "actors", "serve"},
    "pipelines": {"ground", "mod", "actors", "serve", "pipelines"},
    "infra": {"ground", "infra"},
    "bench": {"ground", "mod", "actors", "serve", "pipelines", "infra", "bench"},
    "roof": {"ground", "mod", "actors", "serve", "pipelines", "roof"},
}
GROUND = {"longreel", "longreel.errors", "longreel.metrics", "longreel.schemas"}
PACKAGES = {"longreel", "mod", "actors", "pipelines", "serve", "infra", "bench"}
#: The model runs where neither Ray nor a video library is installed.
ABSENT_FROM_MOD = {"ray", "av", "boto3", "pyarrow", "fastapi", "prometheus_client"}


def _floor(module: str) -> str:
    if module.split(".")[0] != "longreel":
        return module.split(".")[0]
    return "ground" if module in GROUND else "roof"


def _imports(path: Path, module: str = "") -> set[str]:
    found = set()
    tree = ast.parse(path.read_text())
    if module == "longreel":
        # It names the client for type checkers; see below for what it loads.
        tree.body = [node for node in tree.body if not _for_type_checkers(node)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            wholes = (f"{node.module}.{alias.name}" for alias in node.names)
            found |= {whole if _is_module(whole) else node.module for whole in wholes}
    return found


def _is_module(name: str) -> bool:
    place = ROOT.joinpath(*name.split("."))
    return place.is_dir() or place.with_suffix(".py").is_file()


def _for_type_checkers(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def _modules() -> list[tuple[str, Path]]:
    return [
        (".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), path)
        for package in sorted(PACKAGES)
        for path in sorted((ROOT / package).rglob("*.py"))
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "path"), _modules(), ids=lambda v: v if isinstance(v, str) else ""
)
def test_a_module_imports_only_from_its_floor_and_below(module: str, path: Path) -> None:
    """Guards against packages that need each other, and Ray or a codec creeping into the model."""
    for imported in _imports(path, module):
        if imported.split(".")[0] in PACKAGES:
            assert _floor(imported) in BELOW[_floor(module)], f"{module} imports {imported}"
        if module.startswith("mod"):
            assert imported.split(".")[0] not in ABSENT_FROM_MOD, f"{module} imports {imported}"


@pytest.mark.slow
def test_no_module_needs_itself() -> None:
    """Guards against circles, those through imports inside functions and for types included: of two
    modules that need each other neither can be read, tested or moved alone.
    """
    modules = dict(_modules())
    needs = {module: _imports(path, module) & set(modules) for module, path in modules.items()}
    tuple(TopologicalSorter(needs).static_order())  # names the circle


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_a_package_says_what_belongs_in_it(package: str) -> None:
    """Guards against a folder in which anything may be put."""
    assert ast.get_docstring(ast.parse((ROOT / package / "__init__.py").read_text()))


def test_tests_lie_in_the_folders_that_they_test() -> None:
    """Guards against tests that nobody finds beside what they test once folders have changed."""
    folders = {path.parent.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("*.py")}
    assert not {str(folder) for folder in folders if not (ROOT / folder).is_dir()}


def test_the_ground_floor_loads_no_client_until_it_is_asked_for() -> None:
    """Guards against an HTTP library in every process, and against a client that is not there."""
    loaded = "[m for m in sys.modules if m.split('.')[0] in ('httpx', 'numpy', 'ray')]"
    program = (
        f"import sys, longreel, longreel.errors; assert not {loaded}, {loaded};"
        "assert 'longreel.client' not in sys.modules;"
        "from longreel import AsyncClient, Client; assert Client and AsyncClient;"
        "assert 'httpx' in sys.modules;"
        "assert not {'ray', 'av', 'torch', 'fastapi'} & set(sys.modules);"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, timeout=120)


@pytest.mark.slow
def test_whoever_deploys_or_ends_connections_loads_no_torch() -> None:
    """Guards seconds of every command, and gigabytes of every gateway: replicas alone compute."""
    program = "import sys, serve.app; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, timeout=120)


@pytest.mark.slow
def test_a_job_that_cannot_work_is_refused_without_loading_ray() -> None:
    """Guards seconds between a mistake on the command line and the word on it."""
    program = """
import sys
from longreel.cli import main
sys.argv = ["longreel", "summarize", "x.mp4", "-o", "rows", "--keep-ratio", "5"]
try:
    code = main()
except SystemExit as exit:
    code = exit.code
assert code == 2, code
assert not {"ray", "torch", "pandas"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, timeout=120)


def test_a_name_that_is_not_there_is_still_an_error() -> None:
    """Guards the lazy names against answering for every name."""
    import longreel

    with pytest.raises(AttributeError, match="Clients"):
        _ = longreel.Clients
