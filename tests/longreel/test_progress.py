"""The live view of a running job."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from actors.progress import Progress
from longreel.progress import ProgressView


@pytest.mark.parametrize("terminal", [True, False])
def test_a_failure_cannot_move_the_cursor(terminal: bool) -> None:
    """Guards against control sequences in a video's name, which would reach the terminal."""
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=terminal, color_system=None, width=100)
    with ProgressView(console) as view:
        view.update("narrating", Progress(failures=["a\x1b]0;t\x07\nb.mp4: Empty: \u202egnp"]))
    assert "  ! a\\x1b]0;t\\x07 b.mp4: Empty: \\u202egnp" in shown.getvalue()
    assert "\x1b]0" not in shown.getvalue()
