"""The owners that report to a session directory."""

from __future__ import annotations

from dataclasses import replace

import pytest

from actors import owners
from actors.owners import Owners
from actors.placement import Load, overloaded

BEHIND = Load(free_bytes=1, sessions=10, lag_s=60.0, live=2.0, behind_s=60.0)


def test_sessions_that_went_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a count of orders, which are given again while one session drains, and
    against one that begins anew with what was counted before."""
    monkeypatch.setattr(owners, "RELIEF_S", -1.0)
    assert overloaded(BEHIND)
    known = Owners()
    known.report("b", "B", Load(free_bytes=2**30, capacity_bytes=2**30))
    # As after a restart of the directory: it has sent four elsewhere before.
    assert known.report("a", "A", replace(BEHIND, relieved=4)).relieve
    assert known.report("a", "A", replace(BEHIND, relieved=4)).relieve
    assert known.relieved == 0
    known.report("a", "A", replace(BEHIND, relieved=5))
    known.report("a", "A", replace(BEHIND, relieved=5))
    assert known.relieved == 1
