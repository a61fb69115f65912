"""A router chosen at loading: dense checkpoints skip tokens, and what cannot work is told.

Guards against a router that is asked for and not there, and is told of only when the model is
loaded.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from longreel.errors import UsageError
from mod.checkpoint import TINY, Checkpoint, find_checkpoint
from mod.choice import choose_router, require_router
from mod.engine.viewer import Viewer
from mod.loading import load
from tests.mod.engine.models import talking_model
from tests.mod.small import small_layout, small_model, some_frames


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A checkpoint that was never routed."""
    folder = tmp_path_factory.mktemp("dense")
    model, layout = talking_model(router="none")
    model.save_pretrained(folder)
    layout.tokenizer.save_pretrained(folder)
    return find_checkpoint(str(folder))


@pytest.mark.slow
@pytest.mark.parametrize("router", ["redundancy", "norm", "attention"])
def test_a_dense_checkpoint_skips_tokens_without_training(dense: Checkpoint, router: str) -> None:
    model, layout = load(dense, 0.2, f"{router}:after-2")
    assert (model.config.router, model.config.mod_layers) == (router, [2, 3])
    viewer = Viewer(model, layout, max_new_tokens=3)
    assert len(viewer.watch(some_frames(4))) == 4
    lengths = viewer.engine.lengths("viewer")
    assert lengths[0] == lengths[1] == lengths[3] + 4 * 8
    whole, _ = load(dense, 1.0, router)
    assert whole.config.mod_layers == [1, 3]
    again = Viewer(whole, layout, max_new_tokens=3).watch(some_frames(4))
    assert [o.text for o in again] == [
        o.text for o in Viewer(*load(dense), max_new_tokens=3).watch(some_frames(4))
    ]


def test_the_router_of_a_trained_checkpoint_gives_way() -> None:
    checkpoint = find_checkpoint(TINY)
    model, _ = load(checkpoint, router="redundancy")
    assert not list(model.routers.parameters())
    assert model.config.mod_layers == [1, 3, 5]
    trained, _ = load(checkpoint, router="bounded")
    assert all(torch.any(weight != 0) for weight in trained.routers.parameters())


@pytest.mark.parametrize(
    ("spelled", "said"),
    [
        ("best", "--router must be one of learned, bounded, .*attention, skip, none, not 'best'"),
        ("", "--router must be one of .* not ''"),
        ("norm:", "the layers of --router must be one of interleaved, .* not ''"),
        ("norm:deep", "the layers of --router must be one of .*after-N, or numbers .* not 'deep'"),
        ("learned", "has no weights of a router, which --router learned needs"),
        ("bounded:all", "has no weights of a router, which --router bounded needs"),
        ("norm:after-4", "leaves none of 4 layers"),
        ("norm:1,4", "--router names layer 4; the model has 4"),
        ("norm:1,1", "names a layer twice"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(
    dense: Checkpoint, spelled: str, said: str
) -> None:
    with pytest.raises(UsageError, match=said) as refused:
        load(dense, router=spelled)
    assert "\n" not in str(refused.value)


def test_weights_of_another_kind_of_router_are_refused() -> None:
    """Guards against a bounded router's scores that multiply whole branches as the paper's do."""
    with pytest.raises(UsageError, match=r"a router trained as 'bounded', which --router learned"):
        load(find_checkpoint(TINY), router="learned")


def test_layers_that_no_router_was_trained_for_are_refused() -> None:
    with pytest.raises(UsageError, match=r"lacks the weight 'routers\.0\.weight'"):
        load(find_checkpoint(TINY), router="bounded:all")


def test_a_choice_is_taken_apart_without_the_model(dense: Checkpoint) -> None:
    assert choose_router("norm", dense).layers is None
    assert choose_router("norm:3,2", dense).layers == [3, 2]
    assert dense.router == "none"


def test_a_keep_ratio_that_nothing_would_act_on_is_refused(dense: Checkpoint) -> None:
    """Guards against a job that is told to skip tokens and skips none."""
    tiny = find_checkpoint(TINY)
    with pytest.raises(UsageError, match=r"a keep ratio of 0\.5 needs a router"):
        require_router(0.5, None, dense)
    with pytest.raises(UsageError, match="needs a router"):
        require_router(0.5, "none", tiny)
    require_router(0.5, "redundancy", dense)
    require_router(1.0, None, dense)
    require_router(None, None, dense)
    require_router(0.5, None, tiny)


def test_a_keep_ratio_takes_the_place_of_those_of_single_layers(tmp_path: Path) -> None:
    """Guards against an option that a checkpoint's own list silently overrides."""
    model = small_model(router="norm", mod_layers=[1, 3], keep_ratios=[0.5, 0.2])
    model.save_pretrained(tmp_path)
    small_layout(model.config).tokenizer.save_pretrained(tmp_path)
    checkpoint = find_checkpoint(str(tmp_path))
    assert checkpoint.keep_ratio == pytest.approx(0.35)
    own, _ = load(checkpoint)
    assert own.config.mean_keep_ratio == checkpoint.keep_ratio
    assert own.config.tokens_in_layer(1) > own.config.tokens_in_layer(3)
    for keep in (1.0, 0.2):
        config = load(checkpoint, keep)[0].config
        tokens = max(1, round(keep * config.tokens_per_frame))
        assert [config.tokens_in_layer(layer) for layer in (1, 3)] == [tokens] * 2
        assert config.mean_keep_ratio == keep
    # In other layers the same share runs, which is what a job's rows name.
    elsewhere = load(checkpoint, router="redundancy:1")[0].config
    assert (elsewhere.keep_ratios, elsewhere.mean_keep_ratio) == (None, checkpoint.keep_ratio)
