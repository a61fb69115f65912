"""What a result says of the code that gave it.

Guards against results that name a commit on which nobody finds their figures again.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bench import harness


def _git(folder: Path, *command: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    told = subprocess.run(["git", *who, *command], cwd=folder, capture_output=True, check=True)
    return told.stdout.decode().strip()


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ("bench/results/machine/other.json", True),
        ("docs/benchmarks.md", True),
        ("README.md", True),
        ("bench/code.py", False),
        ("results/code.py", False),
    ],
)
def test_only_other_results_and_pages_may_differ_from_the_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str, same: bool
) -> None:
    """Guards against all results of a run but the first that seem to be of changed code, and
    against one of changed code that does not."""
    file = tmp_path / changed
    for folder in (file.parent, tmp_path / "bench" / "results"):
        folder.mkdir(parents=True, exist_ok=True)
    file.write_text("before")
    _git(tmp_path, "init", "-q")
    _git(tmp_path, "add", "-A")
    _git(tmp_path, "commit", "-q", "-m", "all")
    commit = _git(tmp_path, "describe", "--always")
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "bench" / "results")
    assert harness._commit() == commit
    file.write_text("after")
    assert harness._commit() == (commit if same else f"{commit}-dirty")
