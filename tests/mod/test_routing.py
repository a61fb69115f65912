"""Routing: how many tokens each frame keeps, and which.

Guards against tokens that run in greater or smaller number than the keep ratio says, and routers
that cannot learn.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mod.routers import ROUTERS
from mod.routing import LayerRouter


@pytest.mark.parametrize("kind", ROUTERS)
@given(frames=st.integers(1, 5), tokens=st.integers(1, 12), data=st.data())
@settings(max_examples=25, deadline=None)
def test_each_frame_keeps_exactly_k(
    kind: str, frames: int, tokens: int, data: st.DataObject
) -> None:
    """Guards against ties or ranges that keep more or fewer: the cost model counts on k."""
    k = data.draw(st.integers(1, tokens))
    keep_last = data.draw(st.booleans())
    router = LayerRouter(4, kind, layer=3)  # type: ignore[arg-type]
    x = torch.zeros(frames, tokens, 4)  # all alike: nothing but ties
    given = torch.zeros(frames, tokens) if kind in ("redundancy", "attention") else None
    routing = router(x, torch.arange(frames) * tokens, k, keep_last, given)
    assert routing.kept.sum(1).tolist() == [k] * frames
    if keep_last:
        assert routing.kept[:, -1].all()


def test_highest_scores_win_within_their_own_frame() -> None:
    router = LayerRouter(1, "learned", layer=0)
    torch.nn.init.ones_(router.weight)
    x = torch.tensor([[1.0, 3, 2, 0], [10, 40, 20, 30]])[..., None]
    routing = router(x, torch.tensor([0, 4]), 2, keep_last=False)
    assert routing.kept.tolist() == [[False, True, True, False], [False, True, False, True]]
    assert torch.equal(router.weigh(x[0]), x[0, :, 0])


def test_bounded_weights_start_dense_and_stay_near_one() -> None:
    router = LayerRouter(3, "bounded", layer=0)
    assert torch.equal(router.weigh(torch.randn(4, 3)), torch.ones(4))
    torch.nn.init.constant_(router.weight, 100.0)
    weight = router.weigh(torch.randn(4, 3))
    assert ((weight >= 0.8) & (weight <= 1.2)).all()


def test_random_routing_depends_on_position_and_layer_only() -> None:
    """Guards against a generator's state, which would make chunking change the outcome."""
    x = torch.zeros(40, 10, 2)
    positions = torch.arange(40) * 11
    kept = LayerRouter(2, "random", layer=1)(x, positions, 2, False).kept
    again = LayerRouter(2, "random", layer=1)(x[7:9], positions[7:9], 2, False).kept
    other = LayerRouter(2, "random", layer=3)(x, positions, 2, False).kept
    assert torch.equal(kept[7:9], again)
    assert not torch.equal(kept, other)
    assert (kept.float().mean(0) > 0.02).all()


def test_gradients_reach_the_router() -> None:
    router = LayerRouter(3, "bounded", layer=0)
    torch.autograd.backward(router.weigh(torch.randn(4, 3)).sum())
    assert router.weight.grad is not None
    assert router.weight.grad.abs().sum() > 0


def test_redundancy_keeps_what_changed_and_spreads_over_what_did_not() -> None:
    """Guards still pictures against the same tokens for ever, in all layers, and what moves
    against chance.
    """
    n = 80
    x, positions = torch.zeros(n, 8, 2), torch.arange(n) * 9
    changes = torch.rand(n, 8) * 1e-4  # rounding, or the noise of a still camera
    still = []
    for layer in (1, 2):
        router = LayerRouter(2, "redundancy", layer)
        kept = router(x, positions, 2, keep_last=True, given=changes).kept
        assert bool(kept[:, 7].all())
        still.append(kept[:, :7])
        often = still[-1].sum(0)
        assert int(often.min()) >= 3
        assert int(often.max()) <= 30
        # Whoever shares the batch.
        alone = router(x[3:4], positions[3:4], 2, keep_last=True, given=changes[3:4]).kept
        assert torch.equal(alone[0], kept[3])
        moving = changes.clone()
        moving[torch.arange(n), torch.arange(n) % 7] = 0.4
        kept = router(x, positions, 2, keep_last=True, given=moving).kept
        assert bool(kept[torch.arange(n), torch.arange(n) % 7].all())
    assert not torch.equal(*still)


def test_norm_keeps_the_largest_tokens() -> None:
    x = torch.tensor([[3.0, -5, 1, 4], [0, 1, -2, 0]])[..., None]
    router = LayerRouter(1, "norm", layer=0)
    routing = router(x, torch.zeros(2), 2, keep_last=False)
    assert routing.kept.tolist() == [[False, True, False, True], [False, True, True, False]]
    assert torch.equal(router.weigh(x[0]), torch.ones(4))


@pytest.mark.parametrize("kind", ["redundancy", "attention"])
def test_scores_that_were_forgotten_are_missed(kind: str) -> None:
    """Guards against a caller whose frames would be routed as if none had one before."""
    with pytest.raises(ValueError, match=kind):
        LayerRouter(2, kind, layer=0)(torch.zeros(1, 4, 2), torch.zeros(1), 2, True)  # type: ignore[arg-type]
