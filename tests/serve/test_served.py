"""Guards against rows that name one model and come from another: what counts as a difference."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from serve.served import Served, difference

HAVE = Served("tiny", "abc", 0.2, "bounded")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"revision": "def"}, "holds model tiny abc, the job wants tiny def"),
        ({"keep_ratio": 0.5}, "keep ratio 0.2, the job wants 0.5"),
        ({"router": None}, "router bounded, the job wants the model's own"),
        ({"quantize": "int8"}, "has weights whole, the job wants them int8"),
    ],
)
def test_each_difference_is_named(changed: dict[str, Any], said: str) -> None:
    told = difference(HAVE, replace(HAVE, **changed))
    assert told is not None
    assert said in told


def test_the_same_files_by_another_name_are_the_same() -> None:
    assert difference(HAVE, replace(HAVE, model="/models/tiny")) is None
