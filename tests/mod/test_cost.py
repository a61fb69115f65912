"""The cost model agrees with what the network really keeps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mod.cost import activation_bytes
from mod.decoder import Stream
from mod.modeling import VideoLLMMoD
from tests.mod.small import small_config


def _kept_bytes(model: VideoLLMMoD, n_frames: int) -> int:
    """Bytes of distinct storages that autograd keeps for the backward, weights left out."""
    n = model.config.tokens_per_frame + 1
    embeddings = torch.randn(n_frames * n, model.config.text_config.hidden_size)
    embeddings.requires_grad = True
    starts = torch.arange(n_frames) * n
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(Stream(embeddings, torch.arange(n_frames * n), starts, [n_frames * n]))
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize(
    "fields",
    [
        {"router": "none"},
        {"router": "bounded"},
        {"router": "learned", "mod_layers": "all", "keep_ratio": 0.3},
        {"router": "skip", "mod_layers": "after-2"},
    ],
)
def test_activation_memory_is_predicted(fields: dict[str, Any]) -> None:
    """Guards the claim that skipped tokens keep nothing: an upper and a lower bound."""
    config = small_config(**fields)
    # Wide enough that indices and scalars do not matter, deep enough that the layers do.
    config.text_config.hidden_size, config.text_config.intermediate_size = 192, 512
    config.text_config.head_dim, config.text_config.num_hidden_layers = 48, 10
    if config.mod_layers == list(range(4)):
        config.mod_layers = list(range(10))
    model = VideoLLMMoD(config).train()
    # The first layer's input, the final norm and the rotary tables belong to no layer.
    outside = 4 * 33 * 11 * (3 * 192 + 2 * 48)
    measured = _kept_bytes(model, 33) - outside
    predicted = activation_bytes(config, 33, 33)
    assert predicted == pytest.approx(measured, rel=0.03)


def test_checkpointing_keeps_inputs_and_one_layer() -> None:
    config = small_config(router="none")
    full, kept = (activation_bytes(config, 10, 10, checkpointing=c) for c in (False, True))
    assert full / 4 < kept < full / 2
