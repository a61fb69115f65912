"""VideoLLM-MoD on transformers: SigLIP tower, connector, routed decoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, SiglipVisionModel

from mod.config import VideoLLMMoDConfig
from mod.decoder import RoutedDecoder

#: Of the difference of two frames, in (-1, 1) units; differences above it grow as square roots.
_LIFT = 0.05
GENERATION = "generation_config.json"


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
    #: The language model's generation config as its file has it: published ones often hold what
    #: transformers would refuse to write.
    generation: bytes | None = None
    _supports_sdpa = True
    _supports_attention_backend = True
    _tied_weights_keys: ClassVar[dict[str, str]] = {
        "language_model.lm_head.weight": "language_model.model.embed_tokens.weight"
    }

    def __init__(self, config: VideoLLMMoDConfig) -> None:
        super().__init__(config)
        self.vision_tower = _built("vision_config", config.vision_config, SiglipVisionModel)
        self.language_model = _built("text_config", config.text_config, AutoModelForCausalLM)
        _check_layered(self.language_model)
        hidden_size = config.text_config.hidden_size
        self.connector = Connector(config.vision_config.hidden_size, hidden_size)
        self.add_routers()
        self.post_init()

    @classmethod
    def from_pretrained(cls, folder: str | Path, *args: Any, **options: Any) -> Any:
        """See ``PreTrainedModel``; the generation config in ``folder`` is kept too."""
        made = super().from_pretrained(folder, *args, **options)
        model = made[0] if isinstance(made, tuple) else made
        if (file := Path(folder) / GENERATION).is_file():
            model.generation = file.read_bytes()
        return made

    def save_pretrained(self, folder: str | Path, **options: Any) -> None:
        """See ``PreTrainedModel``; with the generation config that came with the model."""
        super().save_pretrained(folder, **options)
        if self.generation is not None:
            (Path(folder) / GENERATION).write_bytes(self.generation)
        elif config := getattr(self.language_model, "generation_config", None):
            config.save_pretrained(folder)

    @property
    def decoder(self) -> Any:
        """See ``RoutedDecoder``."""
        return self.language_model.model

    @property
    def head(self) -> Any:
        """See ``RoutedDecoder``."""
        return self.language_model.lm_head

    def get_input_embeddings(self) -> nn.Embedding:
        """Those of the text tokens, where transformers looks for them."""
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
        dtype = self.vision_tower.embeddings.patch_embedding.weight.dtype
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
        # While it is trained the connector may be held more exactly than the tower.
        out: Tensor = self.connector(tokens.to(self.connector.up.weight.dtype))
        return out


def _built(name: str, config: Any, kind: Any) -> Any:
    """A part with random weights, of the one type that the whole model has.

    Raises:
        ValueError: there is no such part; ``name`` is that of its config.
    """
    # A part's own type, as its published config has it, may be another than the other part's.
    dtype = None if config.dtype is None else torch.get_default_dtype()
    make = kind._from_config if kind is SiglipVisionModel else kind.from_config
    try:
        return make(config, dtype=dtype)
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as failure:
        raise ValueError(f"{name} describes no model: {failure!r}") from failure


def _check_layered(language_model: Any) -> None:
    """Refuse families that are built otherwise than what routing takes apart.

    Raises:
        ValueError: names the family and what it lacks.
    """
    for path in ("model.layers", "model.norm", "model.rotary_emb", "lm_head"):
        part = language_model
        for step in path.split("."):
            part = getattr(part, step, None)
        if part is None:
            raise ValueError(
                f"text_config.model_type {language_model.config.model_type!r} has no {path}: its "
                "layers cannot be run one by one"
            )
