"""The event loop that routes run on, and an API whose clients have keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.serve.keyed import Keyed


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def keyed(tmp_path: Path) -> Keyed:
    return Keyed(tmp_path)
