"""The engine's guide: its scripts run as they are written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[3] / "docs" / "engine.md"


def test_the_scripts_of_the_guide_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards against a guide whose scripts end in an error."""
    monkeypatch.chdir(tmp_path)
    scripts = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert len(scripts) == 2
    exec("\n".join(scripts), {})
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("0.0 ")
    assert any("TurnEnded" in line and "question='q1'" in line for line in printed)
