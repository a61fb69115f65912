"""Keys that carry rotary position embeddings, moved to other positions."""

from __future__ import annotations

import math
import sys

import torch
from torch import Tensor

from mod.decoder import RoutedDecoder
from mod.engine.policy import PolicyError
from mod.part_configs import UNSTEADY_ROPE


class Rotation:
    """Rotates keys by differences of positions, with the model's own embedding.

    RoPE is a group: what was rotated to position p, rotated by d, is at p + d. Scaled variants
    are right because angles and the way that dimensions pair up are the model's.
    """

    def __init__(self, model: RoutedDecoder) -> None:
        decoder = model.decoder
        self._name = model.config.get_text_config().model_type
        # Models of some families have layers whose keys carry no positions.
        self._everywhere = all(getattr(m.self_attn, "use_rope", True) for m in decoder.layers)
        self._embed = decoder.rotary_emb
        attention = sys.modules[type(decoder.layers[0].self_attn).__module__]
        self._apply = getattr(attention, "apply_rotary_pos_emb", None)
        self._scaling = float(getattr(self._embed, "attention_scaling", 1.0))

    def check(self, policy: str) -> None:
        """Refuse models whose keys cannot be moved.

        Args:
            policy: what needs them moved, as the error calls it.

        Raises:
            PolicyError: the family has no rotary embedding, one that changes with length, or one
                that not all of its layers use.
        """
        refused = f"keys of {self._name!r} models cannot be moved, as {policy!r} needs"
        kind = getattr(self._embed, "rope_type", "default")
        if kind in UNSTEADY_ROPE:
            raise PolicyError(f"{refused}: {kind!r} RoPE changes with length")
        if self._apply is None:
            raise PolicyError(f"{refused}: the family has no RoPE that is known")
        if not self._everywhere:
            raise PolicyError(f"{refused}: some of their layers have no RoPE")

    def turn(self, keys: Tensor, by: Tensor) -> Tensor:
        """Move keys by some positions.

        Args:
            keys: (..., tokens, heads, head_dim).
            by: (tokens,) or (axes, tokens) positions, negative towards the beginning.

        Returns:
            The same shape in float32.
        """
        keys = keys.float()
        by = by.to(keys.device)
        alike = by.dim() == 1 or len(by) == 1
        cos, sin = self._embed(keys, by.reshape(1, -1) if alike else by[:, None])
        # Lengths were scaled when the keys were made.
        cos, sin = cos / self._scaling, sin / self._scaling
        # The count is said: of no tokens it cannot be told from the others.
        flat = keys.reshape(math.prod(keys.shape[:-3]), *keys.shape[-3:])
        rotated = flat[..., : cos.shape[-1]]
        assert self._apply is not None
        _, moved = self._apply(rotated, rotated, cos, sin, unsqueeze_dim=2)
        return torch.cat([moved, flat[..., cos.shape[-1] :]], dim=-1).view(keys.shape)
