"""The count of what one key reaches of another's: none here, and many where nobody keeps watch."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.hostile_keys import trespass
from serve.routes import app as module
from tests.serve.keyed import Keyed
from tests.serve.served import served


@pytest.mark.slow
def test_nothing_is_reached(tmp_path: Path) -> None:
    """Guards against a route by which one key reaches what is another's."""
    keyed = Keyed(tmp_path)
    with served(keyed.app()) as url:
        found = trespass(url, str(tmp_path))
    assert found.reads == []
    assert found.kinds == {"session", "file", "stream"}
    assert found.tries > 80


@pytest.mark.slow
def test_a_service_that_keeps_nothing_apart_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against a count of zero that would be zero anyway."""
    monkeypatch.setattr(module, "owned", lambda context: context)
    keyed = Keyed(tmp_path)
    with served(keyed.app()) as url:
        found = trespass(url, str(tmp_path))
    assert {read.split(":")[0] for read in found.reads} >= {
        "GET /v1/sessions/{session}",
        "GET /v1/streams",
    }
