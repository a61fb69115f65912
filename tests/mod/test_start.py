"""What a recipe's router makes of the model that it starts from.

Guards a comparison of routers in which some were not the ones that the recipe names.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch

from longreel.errors import UsageError
from mod import loading
from mod.checkpoint import TINY, find_checkpoint
from mod.loading import load
from mod.recipe import NEW_TINY, DataPart, ModelPart, ScalePart, TrainingPart, TrainRecipe
from mod.start import check_start, start
from mod.train import save, train


def _recipe(**model: object) -> TrainRecipe:
    return TrainRecipe(
        model=ModelPart(**model),  # type: ignore[arg-type]
        data=DataPart(batch_frames=8, frames=[4], long_frames=4),
        training=TrainingPart(steps=2, see_steps=0, warmup=1),
    )


@pytest.mark.slow
@pytest.mark.parametrize("begin", [NEW_TINY, TINY])
@pytest.mark.parametrize(
    ("router", "kind", "layers"),
    [
        ("random", "random", [1, 3, 5]),
        ("skip:after-2", "skip", [2, 3, 4, 5]),
        ("learned:interleaved-deep", "learned", [3, 5]),
        ("bounded:all", "bounded", [0, 1, 2, 3, 4, 5]),
        ("none", "none", [1, 3, 5]),
    ],
)
def test_a_recipe_names_router_and_layers(
    begin: str, router: str, kind: str, layers: list[int]
) -> None:
    keep = None if kind == "none" else 0.3
    model, _ = start(_recipe(start=begin, router=router, keep_ratio=keep))
    config = model.config
    assert (config.router, config.mod_layers, config.keep_ratio) == (kind, layers, keep or 0.2)
    assert sorted(model.routers) == ([] if kind == "none" else [str(layer) for layer in layers])


def test_a_router_of_the_same_kind_goes_on_and_one_of_another_begins_anew() -> None:
    trained, _ = load(find_checkpoint(TINY))
    kept, _ = start(_recipe(start=TINY, router="bounded:all"))
    for layer, router in kept.routers.items():
        weight = router.get_parameter("weight")
        if layer in trained.routers:
            assert torch.equal(weight, trained.routers[layer].get_parameter("weight"))
        else:
            assert not weight.any()
    for _ in range(2):
        other, _ = start(_recipe(start=TINY, router="learned"))
        weight = other.routers["1"].get_parameter("weight")
        assert float(weight.detach().std()) == pytest.approx(0.02, rel=0.3)
        assert not torch.equal(weight, trained.routers["1"].get_parameter("weight"))


@pytest.mark.parametrize("begin", [NEW_TINY, TINY])
def test_a_keep_ratio_without_a_router_is_refused(begin: str) -> None:
    with pytest.raises(UsageError, match=r"model.keep_ratio of 0\.3 needs a model.router"):
        check_start(_recipe(start=begin, router="none", keep_ratio=0.3))


@pytest.mark.parametrize("begin", [NEW_TINY, TINY])
@pytest.mark.parametrize(
    ("router", "said"),
    [
        ("best", "model.router must be one of learned, .* not 'best'"),
        ("random:sometimes", "the layers of model.router must be one of .* not 'sometimes'"),
        ("random:after-6", "leaves none of 6 layers"),
        ("random:1,9", "names layer 9; the model has 6"),
    ],
)
def test_a_router_that_cannot_work_is_refused_before_anything_starts(
    begin: str, router: str, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        check_start(_recipe(start=begin, router=router))


@pytest.mark.slow
def test_early_exit_is_trained_by_its_recipe_alone(tmp_path: Path) -> None:
    """Guards the baselines: a checkpoint whose config lost what it was trained as."""
    train(_recipe(start=TINY, router="skip:after-2"), tmp_path / "out", workers=0)
    model, _ = load(find_checkpoint(str(tmp_path / "out")))
    assert [model.config.tokens_in_layer(layer) for layer in range(6)] == [10, 10, 1, 1, 1, 1]


@pytest.mark.parametrize(("strategy", "held"), [("ddp", False), ("fsdp2", True)])
def test_a_model_larger_than_a_gpu_begins_where_it_is_trained_in_shards(
    monkeypatch: pytest.MonkeyPatch, strategy: Literal["ddp", "fsdp2"], held: bool
) -> None:
    """Guards against the very models refused for which there are shards."""
    monkeypatch.setattr(loading, "_on_gpu", lambda _: True)
    # All GPUs of a node are seen by each of its workers, which have one.
    monkeypatch.setattr(loading, "_free_on_gpus", lambda device: 0 if device else 2**40)
    recipe = replace(_recipe(start=TINY), scale=ScalePart(workers=2, strategy=strategy))
    with nullcontext() if held else pytest.raises(UsageError, match="GiB of GPU memory are free"):
        start(recipe, torch.device("cuda", 0))
    monkeypatch.setattr(loading, "available_bytes", lambda: 0)
    with pytest.raises(UsageError, match=r"GiB of (GPU )?memory are free"):
        start(recipe, torch.device("cuda", 0))


def test_weights_lie_in_files_that_a_store_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against one file of a whole model: S3 refuses it when the training is over."""
    monkeypatch.setattr("mod.train.SHARD_SIZE", "200KB")
    model, layout = load(find_checkpoint(TINY))
    weights = model.state_dict()
    save(model, weights, layout.tokenizer, tmp_path)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert len(files) > 2
    largest = max(tensor.nbytes for tensor in weights.values())
    assert max(file.stat().st_size for file in files) < max(300_000, largest)
    again, _ = load(find_checkpoint(str(tmp_path)))
    assert all(torch.equal(again.state_dict()[name], each) for name, each in weights.items())
