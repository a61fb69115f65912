"""Programs that tests run and Python's packages do not bring: a browser, a Prometheus."""

from __future__ import annotations

import os
import shutil

import pytest


def program(name: str) -> str:
    """The path of a command; the test is skipped where there is none.

    Where ``LONGREEL_TEST_PROGRAMS`` is ``required``, as on CI, it fails instead.
    """
    found = shutil.which(name)
    if found is not None:
        return found
    reason = f"there is no {name} on this machine"
    if os.environ.get("LONGREEL_TEST_PROGRAMS") == "required":
        pytest.fail(reason)
    pytest.skip(reason)
