"""Workers that can never start are told of: guards against a command that waits without a word."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray
import torch

from longreel.errors import UsageError
from mod.recipe import ScalePart, TrainRecipe
from pipelines.train import train


def test_a_machine_without_them_refuses_before_a_cluster_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    recipe = TrainRecipe(scale=ScalePart(workers=2, gpus_per_worker=1))
    with pytest.raises(UsageError, match=r"scale.workers: 2 need 2 GPUs, there are 1"):
        train(recipe, str(tmp_path / "out"), lambda told: None)
    assert not (tmp_path / "out").exists()
