"""VideoLLM-MoD on transformers: SigLIP tower, connector, decoder layers with routed tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel, SiglipVisionModel

from mod.attending import attended
from mod.attention import NAME, KVCache, Paged, Spans
from mod.config import VideoLLMMoDConfig
from mod.routing import LayerRouter, Routing

#: Of the difference of two frames, in (-1, 1) units; differences above it grow as square roots.
_LIFT = 0.05


@dataclass(frozen=True)
class Stream:
    """Some sequences' new tokens, flattened without padding, in stream order.

    Attributes:
        embeddings: (tokens, D) text and vision tokens as the language model takes them.
        positions: (tokens,) position of each token in its own stream.
        frame_starts: (frames,) index into ``tokens`` of each frame's first vision token; a
            frame's vision tokens are contiguous.
        lengths: tokens of each sequence; they sum to ``tokens``.
        caches: one cache per sequence, which the forward extends; None in training.
        frames: of each sequence, where the caller knows; then no layer waits for the device.
        paged: takes the place of ``caches`` where they lie in pages; needs ``frames``.
        change: (frames, tokens_per_frame) from the frame before, as ``mod.change`` finds it;
            read by the ``redundancy`` router alone, which needs it.
    """

    embeddings: Tensor
    positions: Tensor
    frame_starts: Tensor
    lengths: list[int]
    caches: Sequence[KVCache] | None = None
    frames: list[int] | None = None
    paged: Paged | None = None
    change: Tensor | None = None


def frames_before(frames: Tensor, last: Tensor | None) -> Tensor:
    """The frame before each of consecutive ``frames``.

    Args:
        frames: (frames, height, width, 3) pictures, or (frames, tokens, D) of their tokens.
        last: the frame just before, without its first dimension; None where the stream begins.
    """
    first = frames[:1] if last is None else last[None]
    return torch.cat([first, frames[:-1]])


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


class VideoLLMMoD(PreTrainedModel):
    """A streaming video language model whose MoD layers run a share of each frame's tokens.

    The decoder layers are those of the configured transformers family, unmodified: routed
    tokens are gathered, the layer is called with their own positions, results are scattered
    back. Skipped tokens cost nothing and write no keys or values.

    Source: arXiv 2408.16730, equations 2 and 3.
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
        self.language_model.set_attn_implementation(NAME)
        hidden_size = config.text_config.hidden_size
        self.connector = Connector(config.vision_config.hidden_size, hidden_size)
        self.routers = nn.ModuleDict(
            {
                str(layer): LayerRouter(hidden_size, config.router, layer)
                for layer in config.mod_layers
                if config.router != "none"
            }
        )
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, LayerRouter) and hasattr(module, "weight"):
            # The paper's raw score multiplies the branch: zero would silence it for good.
            std = 0.02 if module.kind == "learned" else 0.0
            nn.init.normal_(module.weight, std=std)

    def get_input_embeddings(self) -> nn.Embedding:
        embeddings: nn.Embedding = self.language_model.get_input_embeddings()
        return embeddings

    def embed_text(self, token_ids: Tensor) -> Tensor:
        """(tokens,) ids -> (tokens, D)."""
        out: Tensor = self.get_input_embeddings()(token_ids)
        return out

    def encode_frames(self, frames: Tensor, before: Tensor) -> Tensor:
        """Pictures to the tokens that the language model reads.

        Args:
            frames: (frames, height, width, 3) uint8 RGB at the tower's image size.
            before: the frame before each of them, same shape; a stream's first frame stands for
                its own. Read with ``frame_difference`` only; ``frames_before`` makes it.

        Returns:
            (frames, tokens_per_frame, D).
        """
        return self.connect(*self.see(frames, before))

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

    def forward(self, stream: Stream, routings: dict[int, Routing] | None = None) -> Tensor:
        """Run all decoder layers over ``stream``.

        Args:
            routings: filled with the outcome of each MoD layer's router, when given.

        Returns:
            (tokens, D) normalised hidden states; ``logits`` turns the wanted ones into words.
        """
        x = stream.embeddings
        decoder = self.language_model.model
        cos, sin = decoder.rotary_emb(x[None], stream.positions[None])
        every = Spans(stream.lengths, stream.caches, stream.paged)
        for index, layer in enumerate(decoder.layers):
            key = str(index)
            if key in self.routers and stream.frame_starts.numel():
                vision, routing = self._route(index, layer, x, stream)
                if routings is not None:
                    routings[index] = routing
                x = self._mod_layer(index, layer, x, cos, sin, stream, vision, routing)
            else:
                x = layer(x[None], position_embeddings=(cos, sin), spans=every)[0]
        out: Tensor = decoder.norm(x)
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        """(tokens, D) hidden states -> (tokens, vocabulary) next-token logits."""
        out: Tensor = self.language_model.lm_head(hidden)
        return out

    def _route(self, index: int, layer: Any, x: Tensor, stream: Stream) -> tuple[Tensor, Routing]:
        """Places of all vision tokens, and which of them run in layer ``index``."""
        n = self.config.tokens_per_frame
        vision = (stream.frame_starts[:, None] + torch.arange(n, device=x.device)).flatten()
        tokens = x[vision].view(-1, n, x.shape[1])
        attends = self.config.router == "attention"
        routing: Routing = self.routers[str(index)](
            tokens,
            stream.positions[stream.frame_starts],
            self.config.tokens_in_layer(index),
            self.config.always_keep_decision,
            attended(layer, tokens) if attends else stream.change,
        )
        return vision, routing

    def _mod_layer(
        self,
        index: int,
        layer: Any,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        stream: Stream,
        vision: Tensor,
        routing: Routing,
    ) -> Tensor:
        runs = torch.ones(len(x), dtype=torch.bool, device=x.device)
        runs[vision] = routing.kept.flatten()
        is_vision = torch.zeros_like(runs).index_fill(0, vision, True)
        if stream.frames is None:
            chosen = runs.nonzero()[:, 0]
            lengths = [int(part.sum()) for part in torch.split(runs, stream.lengths)]
        else:
            skipped = self.config.tokens_per_frame - self.config.tokens_in_layer(index)
            lengths = [
                n - frames * skipped
                for n, frames in zip(stream.lengths, stream.frames, strict=True)
            ]
            order = torch.argsort((~runs).to(torch.uint8), stable=True)
            chosen = order[: sum(lengths)]
        if not len(chosen):
            return x
        picked = x[chosen]
        out = layer(
            picked[None],
            position_embeddings=(cos[:, chosen], sin[:, chosen]),
            spans=Spans(lengths, stream.caches, stream.paged),
        )[0]
        # Weighed from what is gathered anyway: training keeps no second copy of all tokens for it.
        router = self.routers[str(index)]
        assert isinstance(router, LayerRouter)
        weight = torch.where(is_vision[chosen], router.weigh(picked).to(x.dtype), 1.0)
        return x.index_copy(0, chosen, picked + weight[:, None] * (out - picked))
