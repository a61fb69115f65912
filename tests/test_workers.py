"""Tests that may not run side by side do not, and what they share is made once."""

from __future__ import annotations

from pathlib import Path

from tests.workers import scope

ROOT = Path(__file__).parents[1]


def test_files_and_kinds_of_file_stay_together() -> None:
    """Guards against two clusters at a time on two cores, workers that all wait, and fixtures made
    by every worker."""
    names = [str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_*.py")]
    scopes = {name: scope(f"{name}::test_it[a@b]", ROOT) for name in names}
    assert scopes["tests/serve/test_survival.py"] == "ray"
    assert scopes["tests/longreel/test_deployed.py"] == "ray"
    assert scopes["tests/serve/sources/test_following.py"] == "waits"
    assert scopes["tests/longreel/test_watch_cli.py"] == "waits"
    assert scopes["tests/actors/test_decode.py"] == "tests/actors/test_decode.py"
    assert len(set(scopes.values())) > len(names) // 2
