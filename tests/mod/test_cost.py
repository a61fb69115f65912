"""The cost model agrees with what the network really keeps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mod.cost import activation_bytes, layer_weights, macs
from mod.decoder import Stream
from mod.lora import add_lora
from mod.modeling import VideoLLMMoD
from tests.mod.small import FAMILIES, small_config


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


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_weights_of_a_layer_are_those_of_the_real_one(family: str) -> None:
    """Guards geometry in which heads have a width of their own, and updates of every linear map."""
    config = small_config(family)
    model = VideoLLMMoD(config)

    def weights() -> int:
        (layer, *_) = model.decoder.layers
        return sum(m.weight.numel() for m in layer.modules() if type(m) is nn.Linear)

    plain = weights()
    assert layer_weights(config) == plain
    add_lora(model, 4, 8)
    assert layer_weights(config, lora_rank=4) == weights()


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "fields",
    [
        {"router": "none"},
        {"router": "bounded"},
        {"router": "learned", "mod_layers": "all", "keep_ratios": [0.9, 0.5, 0.3, 0.1]},
        {"router": "skip", "mod_layers": "after-2", "always_keep_decision": False},
    ],
)
@torch.no_grad()
def test_the_decoder_does_the_arithmetic_that_is_foretold(
    family: str, fields: dict[str, Any]
) -> None:
    """Guards against skipped tokens that are computed with after all, and masked."""
    config = small_config(family, **fields)
    model, n = VideoLLMMoD(config), config.tokens_per_frame + 1
    x = torch.randn(7 * n, 32)
    stream = Stream(x, torch.arange(7 * n), torch.arange(7) * n, [7 * n])
    with FlopCounterMode(display=False) as counter:
        model(stream)
    done = counter.get_flop_counts()["Global"]
    # Those of linear maps, without and with bias.
    linear = sum(done.get(op, 0) for op in (torch.ops.aten.mm, torch.ops.aten.addmm))
    assert linear / 2 == macs(config, 7, 7)


def test_checkpointing_keeps_inputs_and_one_layer() -> None:
    """Guards against memory of training that is foretold too small."""
    config = small_config(router="none")
    full, kept = (activation_bytes(config, 10, 10, checkpointing=c) for c in (False, True))
    assert full / 4 < kept < full / 2
