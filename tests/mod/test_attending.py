"""What a frame's last token attends to, from the layer's inputs."""

from __future__ import annotations

import pytest
import torch

from mod.attending import attended
from tests.mod.small import FAMILIES, small_model


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_scores_are_the_layers_own_attention_without_positions(family: str) -> None:
    """Guards the norms and shared keys of each family."""
    model = small_model(family, router="none")
    model.language_model.set_attn_implementation("eager")
    layer = model.language_model.model.layers[1]
    tokens = torch.randn(3, 10, 32, generator=torch.Generator().manual_seed(0))
    cos, sin = model.language_model.model.rotary_emb(tokens, torch.zeros(3, 10, dtype=torch.long))
    _, weights = layer.self_attn(
        layer.input_layernorm(tokens), position_embeddings=(cos, sin), attention_mask=None
    )
    assert torch.allclose(attended(layer, tokens), weights[:, :, -1].mean(1), atol=1e-6)


def test_a_layer_of_another_kind_is_refused() -> None:
    """Guards against scores that are reckoned from a layer which works otherwise."""
    with pytest.raises(ValueError, match="cannot read the queries of a Linear"):
        attended(torch.nn.Linear(4, 4), torch.zeros(1, 2, 4))
