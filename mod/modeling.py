"""VideoLLM-MoD on transformers: SigLIP tower, connector, routed decoder."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, SiglipVisionModel

from mod.config import VideoLLMMoDConfig
from mod.decoder import RoutedDecoder

#: Of the difference of two frames, in (-1, 1) units; differences above it grow as square roots.
_LIFT = 0.05


class Connector(nn.Module):
    """Two-layer MLP from the tower's width to the language model's."""

    def __init__(self, vision_size: int, hidden_size: int) -> None:
        super().__init__()
        self.up = nn.Linear(vision_size, hidden_size)
        self.down = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """(..., vision_size) -> (..., hidden_size)."""
        out: Tensor = self.down(F.gelu(self.up(x)))
        return out


class VideoLLMMoD(RoutedDecoder):
    """VideoLLM-online's stack, a SigLIP tower before any decoder-only language model, with MoD.

    Source: arXiv 2408.16730.
    """

    config_class = VideoLLMMoDConfig
    config: VideoLLMMoDConfig
    main_input_name = "pixel_values"
    base_model_prefix = ""
    _supports_sdpa = True
    _supports_attention_backend = True
    _tied_weights_keys: ClassVar[dict[str, str]] = {
        "language_model.lm_head.weight": "language_model.model.embed_tokens.weight"
    }

    def __init__(self, config: VideoLLMMoDConfig) -> None:
        super().__init__(config)
        self.vision_tower = SiglipVisionModel._from_config(config.vision_config)
        self.language_model = AutoModelForCausalLM.from_config(config.text_config)
        hidden_size = config.text_config.hidden_size
        self.connector = Connector(config.vision_config.hidden_size, hidden_size)
        self.add_routers()
        self.post_init()

    @property
    def decoder(self) -> Any:
        """See ``RoutedDecoder``."""
        return self.language_model.model

    @property
    def head(self) -> Any:
        """See ``RoutedDecoder``."""
        return self.language_model.lm_head

    def get_input_embeddings(self) -> nn.Embedding:
        embeddings: nn.Embedding = self.language_model.get_input_embeddings()
        return embeddings

    def encode_frames(self, frames: Tensor, before: Tensor) -> Tensor:
        """See ``RoutedDecoder``; ``before`` is read with ``frame_difference`` only."""
        return self.connect(*self.see(frames, before))

    def trained_beside(self) -> list[nn.Module]:
        """The connector too."""
        return [self.connector, self.routers]

    def see(self, frames: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """Run the tower: (frames, patches, width) patch features and (frames, width) pooled."""
        dtype = self.connector.up.weight.dtype
        pixels = frames.permute(0, 3, 1, 2).to(dtype) / 127.5 - 1.0
        if self.config.frame_difference:
            earlier = before.permute(0, 3, 1, 2).to(dtype) / 127.5 - 1.0
            change = pixels - earlier
            # Between dark pictures a cut is a small difference: small ones are lifted.
            pixels = torch.cat([pixels, change * torch.rsqrt(change.abs() + _LIFT)], dim=1)
        seen = self.vision_tower(pixel_values=pixels)
        return seen.last_hidden_state, seen.pooler_output

    def connect(self, patches: Tensor, pooled: Tensor) -> Tensor:
        """The tower's features as a frame's tokens, (frames, tokens_per_frame, D)."""
        n, p, width = patches.shape
        side = int(p**0.5)
        grid = patches.transpose(1, 2).reshape(n, width, side, side)
        tokens = F.adaptive_avg_pool2d(grid, self.config.pool_grid).flatten(2).transpose(1, 2)
        if self.config.class_token == "first":
            tokens = torch.cat([pooled[:, None], tokens], dim=1)
        elif self.config.class_token == "last":
            tokens = torch.cat([tokens, pooled[:, None]], dim=1)
        out: Tensor = self.connector(tokens)
        return out
