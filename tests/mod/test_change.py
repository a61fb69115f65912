"""What counts as changed from one frame to the next.

Guards against noise that counts as change, and change that does not.
"""

from __future__ import annotations

import pytest
import torch

from mod.batches import collate
from mod.change import change, within
from mod.decoder import frames_before
from mod.objective import stream_of
from mod.world.dialogues import watch
from tests.mod.small import small_layout, small_model


def test_a_turned_token_has_changed_and_a_longer_one_has_not() -> None:
    before = torch.tensor([[[1.0, 0], [0, 2], [1, 1]]])
    now = torch.tensor([[[3.0, 0], [2, 0], [-1, -1]]])
    assert torch.allclose(change(now, before), torch.tensor([[0.0, 1, 2]]), atol=1e-6)


def test_the_first_frame_of_each_sequence_has_none_before() -> None:
    """Guards batches in which a sequence would be compared to the one beside it."""
    tokens = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0))
    starts = torch.tensor([2, 6, 10, 15, 19])  # 3 frames in 14 tokens, 2 in 9, with words between
    found = within(tokens, starts, [14, 9])
    assert torch.allclose(found[[0, 3]], torch.zeros(2, 3), atol=1e-6)
    assert torch.equal(found[[1, 2, 4]], change(tokens[[1, 2, 4]], tokens[[0, 1, 3]]))


@pytest.mark.slow
@torch.no_grad()
def test_training_and_evaluation_see_the_change_of_the_stream() -> None:
    model = small_model(router="redundancy", frame_difference=True)
    dialogues = [watch(seed, 3) for seed in (1, 2)]
    batch = collate(dialogues, small_layout(model.config), model.config)
    tokens = torch.randn(6, 10, 32, generator=torch.Generator().manual_seed(0))
    found = stream_of(model, batch, tokens).change
    assert found is not None
    parts = [change(part, frames_before(part, None)) for part in torch.split(tokens, 3)]
    assert torch.allclose(found, torch.cat(parts), atol=1e-6)
