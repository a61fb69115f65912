"""Keys moved by a difference lie where the model itself would have put them."""

from __future__ import annotations

import sys

import pytest
import torch
from transformers import SmolLM3Config

from mod.config import VideoLLMMoDConfig
from mod.engine.cache import Memory
from mod.engine.engine import Engine
from mod.engine.policy import PolicyError, Retrieve, Window, policy_name
from mod.engine.rotation import Rotation
from mod.modeling import VideoLLMMoD
from tests.mod.small import FAMILIES, TEXT, small_config, small_layout, small_model

YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 128,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}


def _model(family: str, rope: dict[str, object] | None) -> object:
    if rope is None:
        return small_model(family)
    config = small_config(family)
    config.text_config.rope_parameters = rope
    return type(small_model(family))(config)


@pytest.mark.parametrize(
    ("family", "rope"), [*((name, None) for name in FAMILIES), ("llama", YARN), ("llama", LLAMA3)]
)
def test_moved_keys_are_those_of_the_other_position(
    family: str, rope: dict[str, object] | None
) -> None:
    """Guards scaled variants: their lengths are scaled once, not again at each move."""
    model = _model(family, rope)
    decoder = model.language_model.model  # type: ignore[attr-defined]
    apply = sys.modules[type(decoder.layers[0].self_attn).__module__].apply_rotary_pos_emb
    keys = torch.randn(3, 6, 2, 8, generator=torch.Generator().manual_seed(0))
    positions = torch.tensor([0, 5, 17, 90, 211, 300])
    moves = torch.tensor([7, -5, 100, -60, 0, -299])

    def at(places: torch.Tensor) -> torch.Tensor:
        cos, sin = decoder.rotary_emb(keys, places[None])
        out: torch.Tensor = apply(keys, keys, cos, sin, unsqueeze_dim=2)[1]
        return out

    moved = Rotation(model).turn(at(positions), moves)  # type: ignore[arg-type]
    torch.testing.assert_close(moved, at(positions + moves), atol=1e-4, rtol=1e-4)
    plain = Rotation(model).turn(at(positions), -positions)  # type: ignore[arg-type]
    torch.testing.assert_close(plain, at(torch.zeros(6, dtype=torch.long)), atol=1e-4, rtol=1e-4)


def test_rounding_of_half_precision_keys_stays_small_over_a_windows_moves() -> None:
    """Guards the bound: nine moves, as a key makes in the default window, cost under 1%."""
    rotation = Rotation(small_model())
    keys = torch.randn(64, 2, 8, generator=torch.Generator().manual_seed(0))
    moved = rotation.turn(keys, torch.full((64,), 2900)).to(torch.bfloat16)
    for _ in range(9):
        moved = rotation.turn(moved, torch.full((64,), -320)).to(torch.bfloat16)
    exact = rotation.turn(keys, torch.full((64,), 20))
    assert (moved.float() - exact).norm() / exact.norm() < 0.01


def test_rope_that_changes_with_length_is_refused() -> None:
    """Guards against keys that are moved to places which the model would not have given them."""
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    model = _model("llama", rope)
    with pytest.raises(PolicyError, match="cannot be moved, as 'window' needs: 'dynamic' RoPE"):
        Rotation(model).check("window")  # type: ignore[arg-type]


@pytest.mark.parametrize("policy", [Window(8, 4), Retrieve(8, 4)])
def test_a_family_whose_layers_do_not_all_have_rope_is_refused(policy: Window) -> None:
    """Guards against rotations of keys that carry no positions, as every fourth layer's of
    SmolLM3: what moved would be noise in them. A stream that forgets nothing moves nothing.
    """
    config = small_config().to_dict()
    config["text_config"] = SmolLM3Config(**TEXT, pad_token_id=0)
    model = VideoLLMMoD(VideoLLMMoDConfig(**config)).eval()
    engine = Engine(model, small_layout(model.config), Memory(model.config, 2**20))
    refused = f"keys of 'smollm3' models cannot be moved, as '{policy_name(policy)}' needs: some of"
    with pytest.raises(PolicyError, match=refused):
        engine.open("a", policy=policy)
    engine.open("a")
