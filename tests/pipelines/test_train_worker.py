"""One training worker by itself: what it leaves behind for a retry, and for who measures."""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.distributed.fsdp import FSDPModule

from mod import loading
from mod.checkpoint import TINY
from mod.objective import Objective
from mod.recipe import DataPart, ModelPart, TrainingPart, TrainRecipe
from mod.trainer import Trainer
from pipelines import train as module
from pipelines.train import METRICS, _worker, _wrapper
from tests.mod.small import small_model

pytestmark = pytest.mark.slow
RECIPE = TrainRecipe(
    model=ModelPart(start=TINY),
    data=DataPart(batch_frames=8, frames=[4], long_frames=4),
    training=TrainingPart(steps=2, see_steps=0, warmup=1, save_every=400, evaluate_streams=0),
)


class _Alone:
    """What Ray Train is to the only worker of a run.

    Attributes:
        saved: folder of the last state.
        steps: after which a state was reported.
    """

    def __init__(self, folder: Path) -> None:
        self.saved = folder
        self.steps: list[int] = []
        self.torch = SimpleNamespace(get_device=lambda: torch.device("cpu"))
        self.Checkpoint = SimpleNamespace(from_directory=lambda name: name)

    def get_context(self) -> Any:
        return SimpleNamespace(get_world_rank=lambda: 0, get_world_size=lambda: 1)

    def get_checkpoint(self) -> Any:
        @contextmanager
        def as_directory() -> Any:
            yield self.saved

        return SimpleNamespace(as_directory=as_directory) if self.steps else None

    def report(self, told: dict[str, int], checkpoint: str) -> None:
        shutil.copytree(checkpoint, self.saved, dirs_exist_ok=True)
        self.steps.append(told["step"])


@pytest.fixture
def ray_train(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> _Alone:
    alone = _Alone(tmp_path / "state")
    monkeypatch.setattr(module, "ray_train", alone)
    return alone


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Has one worker follow a recipe to its end; returns the metrics."""

    def to_its_end(recipe: TrainRecipe = RECIPE) -> dict[str, Any]:
        output = tmp_path / "out"
        _worker({"recipe": recipe.as_dict(), "output": str(output), "mailbox": None})
        found: dict[str, Any] = json.loads((output / METRICS).read_text())
        return found

    return to_its_end


def test_whoever_measures_has_the_room_of_the_training(
    ray_train: _Alone, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against a model that does not fit beside the one that was trained."""
    there: list[int] = []
    load_any = loading.load_any

    def counted(*args: Any, **options: Any) -> Any:
        there.append(sum(isinstance(one, Trainer) for one in gc.get_objects()))
        assert options["device"] == torch.device("cpu")
        return load_any(*args, **options)

    monkeypatch.setattr(loading, "load_any", counted)
    assert run()["steps"] == 2
    assert there == [0]


def test_a_model_that_speaks_without_end_ends_its_run(
    ray_train: _Alone, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards a finished training from what its model says; its other figures still count."""

    def evaluate(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no room")

    told: list[dict[str, Any]] = []
    monkeypatch.setattr(module, "evaluate", evaluate)
    monkeypatch.setattr(module, "narrations", evaluate)
    monkeypatch.setattr(module, "_tell", lambda _, kind, **values: told.append({kind: values}))
    training = replace(RECIPE.training, evaluate_streams=1)
    assert run(replace(RECIPE, training=training))["teacher_forced"]["turns"]
    assert {"remark": {"text": "what it says was not measured: no room"}} in told


def test_a_run_that_cannot_be_measured_does_not_learn_again(
    ray_train: _Alone, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against retries that repeat all steps since the last state."""
    with monkeypatch.context() as failing:
        failing.setattr(module, "_measure", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run()
    assert ray_train.steps == [2]
    monkeypatch.setattr(Trainer, "step", lambda *_: pytest.fail("learned again"))
    assert run()["steps"] == 2


def test_a_model_that_is_sharded_is_nowhere_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards models larger than one GPU: all of one was put there before it was sharded."""
    model = small_model()
    sharded: list[torch.nn.Module] = []

    class Sharded(FSDPModule):
        def set_reduce_scatter_unused_params(self, *_: object, **__: object) -> None:
            pass

    def fully_shard(part: torch.nn.Module) -> None:
        assert {p.device.type for p in model.parameters()} == {"cpu"}
        sharded.append(part)
        if isinstance(part, Objective):
            part.__class__ = type("ShardedObjective", (Sharded, Objective), {})

    monkeypatch.setattr(module, "fully_shard", fully_shard)
    objective = Objective(model, None)
    wrap = _wrapper("fsdp2", 2, uneven=False)
    assert wrap(objective, torch.device("meta")) is objective
    assert sharded == [*model.decoder.layers, objective]
    assert {p.device.type for p in model.parameters()} == {"cpu"}
