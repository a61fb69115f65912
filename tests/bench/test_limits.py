"""The limits of the machine, and the shares of them that a bench reaches."""

from __future__ import annotations

import pytest
import torch

from bench.limits import Limits, beside, measured


def test_limits_are_of_the_threads_at_work() -> None:
    """Guards against limits in other units, and of other threads than the bench has."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = measured(0.05)
    finally:
        torch.set_num_threads(before)
    assert found.threads == 1
    assert found.dtype == "float32"
    # No core of this decade is outside of these.
    assert 1e9 < found.flops_per_s < 1e12
    assert 2e8 < found.bytes_per_s < 1e12


def test_shares_are_of_what_was_measured() -> None:
    """Guards against a share of a limit that was taken elsewhere."""
    told = beside(Limits(8e9, 4e9, "float32", 1), {"step": 2e9}, {"copy": 4e9})
    assert told["share_of_flops"] == {"step": pytest.approx(0.25)}
    assert told["share_of_bytes"] == {"copy": pytest.approx(1.0)}
    assert told["flops_per_s"] == 8e9
