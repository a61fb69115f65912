"""``longreel jobs`` without a cluster: what it makes of what one tells."""

from __future__ import annotations

import io
from typing import Any

import pytest

from longreel import jobs_cli

LOG = "narrating\n  ! a\x1b]0;t.mp4:\tEmpty\n"


class _Cluster:
    def get(self, job: str) -> str:
        return job

    def log(self, run: str) -> str:
        return LOG


class _Out(io.StringIO):
    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


@pytest.mark.parametrize(
    ("terminal", "printed"), [(True, LOG.replace("\x1b", "\\x1b")), (False, LOG)]
)
def test_a_log_cannot_move_the_cursor(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, printed: str
) -> None:
    """Guards against names of videos in a log that a terminal takes for commands."""

    def connect(address: Any) -> _Cluster:
        return _Cluster()

    out = _Out(terminal)
    monkeypatch.setattr(jobs_cli, "_connect", connect)
    monkeypatch.setattr("sys.stdout", out)
    jobs_cli.logs("nightly")
    assert out.getvalue() == printed
