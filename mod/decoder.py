"""Decoder layers of any transformers family, unmodified, over streams whose tokens are routed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from mod.attending import attended
from mod.attention import NAME, KVCache, Paged, Spans
from mod.config import RoutedConfig
from mod.places import Places
from mod.routing import LayerRouter, Routing


@dataclass(frozen=True)
class Stream:
    """Some sequences' new tokens, flattened without padding, in stream order.

    Attributes:
        embeddings: (tokens, D) text and vision tokens as the language model takes them.
        positions: (tokens,) position of each token in its own stream, or (axes, tokens) where
            the model has several axes and not all tokens are text.
        frame_starts: (frames,) index into ``tokens`` of each frame's first vision token; a
            frame's vision tokens are contiguous.
        lengths: tokens of each sequence; they sum to ``tokens``.
        caches: one cache per sequence, which the forward extends; None in training.
        frames: of each sequence, where the caller knows; then no layer waits for the device.
        paged: takes the place of ``caches`` where they lie in pages; needs ``frames``.
        change: (frames, tokens_per_frame) from the frame before, as ``mod.change`` finds it;
            read by the ``redundancy`` router alone, which needs it.
        deep: (layers, frames, tokens_per_frame, D) what each of the first layers adds to vision
            tokens, for models whose tower speaks to several.

    Raises:
        ValueError: parts are of different sizes; the message names them.
    """

    embeddings: Tensor
    positions: Tensor
    frame_starts: Tensor
    lengths: list[int]
    caches: Sequence[KVCache] | None = None
    frames: list[int] | None = None
    paged: Paged | None = None
    change: Tensor | None = None
    deep: Tensor | None = None

    def __post_init__(self) -> None:
        tokens = len(self.embeddings)
        if sum(self.lengths) != tokens:
            raise ValueError(
                f"lengths {self.lengths} sum to {sum(self.lengths)}, not to the {tokens} tokens of "
                "embeddings"
            )
        if self.positions.shape[-1] != tokens:
            raise ValueError(
                f"positions of {self.positions.shape[-1]} tokens for embeddings of {tokens}"
            )
        for name in ("caches", "frames"):
            given = getattr(self, name)
            if given is not None and len(given) != len(self.lengths):
                raise ValueError(
                    f"{name} of {len(given)} sequences for lengths of {len(self.lengths)}"
                )


def frames_before(frames: Tensor, last: Tensor | None) -> Tensor:
    """The frame before each of consecutive ``frames``.

    Args:
        frames: (frames, height, width, 3) pictures, or (frames, tokens, D) of their tokens.
        last: the frame just before, without its first dimension; None where the stream begins.
    """
    first = frames[:1] if last is None else last[None]
    return torch.cat([first, frames[:-1]])


class RoutedDecoder(PreTrainedModel):
    """A language model in whose MoD layers a share of each frame's tokens runs.

    Routed tokens are gathered, the layer is called with their own positions, results are scattered
    back. Skipped tokens cost nothing and write no keys or values.

    Source: arXiv 2408.16730, equations 2 and 3.
    """

    config: RoutedConfig
    routers: nn.ModuleDict
    #: Where each layer lies, of a model that is spread over several devices.
    layer_devices: list[torch.device] | None = None
    #: In what the engine runs it; weights in fewer bits are made anew in ways that
    #: ``torch.inference_mode`` does not allow.
    without_grad: Callable[[], AbstractContextManager[Any]] = staticmethod(torch.inference_mode)

    @property
    def decoder(self) -> Any:
        """The language model without its head: ``layers``, ``norm`` and ``rotary_emb``."""
        raise NotImplementedError

    @property
    def head(self) -> Any:
        """From hidden states to logits."""
        raise NotImplementedError

    def encode_frames(self, frames: Tensor, before: Tensor) -> Tensor:
        """Pictures to the tokens that the language model reads.

        Args:
            frames: (frames, height, width, 3) uint8 RGB at the model's picture size; of models
                that see several as one, whole steps.
            before: the frame before each of them, same shape; a stream's first frame stands for
                its own. ``frames_before`` makes it.

        Returns:
            (steps, tokens_per_frame, D), followed along D by what further layers add
            (``Stream.deep``).
        """
        raise NotImplementedError

    def places(self, fps: float) -> Places:
        """How frames lie along its positions' axes in a stream of ``fps`` frames a second."""
        return Places.line(self.config.tokens_per_frame)

    def add_routers(self) -> None:
        """Make the routers that the config names, and have the layers attend over streams."""
        text = self.config.get_text_config()
        self.routers = nn.ModuleDict(
            {
                str(layer): LayerRouter(text.hidden_size, self.config.router, layer)
                for layer in self.config.mod_layers
                if self.config.router != "none"
            }
        )
        self.decoder.set_attn_implementation(NAME)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, LayerRouter) and hasattr(module, "weight"):
            # The paper's raw score multiplies the branch: zero would silence it for good.
            std = 0.02 if module.kind == "learned" else 0.0
            nn.init.normal_(module.weight, std=std)

    def embed_text(self, token_ids: Tensor) -> Tensor:
        """(tokens,) ids -> (tokens, D)."""
        out: Tensor = self.get_input_embeddings()(token_ids)
        return out

    def forward(self, stream: Stream, routings: dict[int, Routing] | None = None) -> Tensor:
        """Run all decoder layers over ``stream``.

        Args:
            routings: filled with the outcome of each MoD layer's router, when given.

        Returns:
            (tokens, D) normalised hidden states; ``logits`` turns the wanted ones into words.
        """
        x = stream.embeddings
        main, decoder = x.device, self.decoder
        positions = stream.positions
        # Text alone lies at one place along all axes, however many the model has.
        positions = positions[None] if positions.dim() == 1 else positions[:, None]
        cos, sin = decoder.rotary_emb(x[None], positions)
        every = Spans(stream.lengths, stream.caches, stream.paged)
        for index, layer in enumerate(decoder.layers):
            key = str(index)
            if self.layer_devices:
                x, cos, sin = (part.to(self.layer_devices[index]) for part in (x, cos, sin))
            if key in self.routers and stream.frame_starts.numel():
                vision, routing = self._route(index, layer, x, stream)
                if routings is not None:
                    routings[index] = routing
                x = self._mod_layer(index, layer, x, cos, sin, stream, vision, routing)
            else:
                x = layer(x[None], position_embeddings=(cos, sin), spans=every)[0]
            if stream.deep is not None and index < len(stream.deep):
                deep = stream.deep[index].flatten(0, 1).to(x)
                x = x.index_add(0, self._vision(stream.frame_starts).to(x.device), deep)
        out: Tensor = decoder.norm(x).to(main)
        return out

    def woven(
        self, embeddings: Tensor, frame_starts: Tensor, features: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Frames laid among text.

        Args:
            embeddings: (tokens, D) of text; what stands where frames lie is replaced.
            features: (frames, tokens_per_frame, ...) as ``encode_frames`` gives them.

        Returns:
            ``Stream.embeddings`` and ``Stream.deep``.
        """
        width = embeddings.shape[1]
        features = features.to(embeddings)
        seen, further = features[..., :width], features[..., width:]
        places = self._vision(frame_starts)
        embeddings = embeddings.index_copy(0, places, seen.flatten(0, 1))
        if not further.shape[2]:
            return embeddings, None
        deep = further.reshape(*further.shape[:2], -1, width).permute(2, 0, 1, 3)
        return embeddings, deep

    def trained_beside(self) -> list[nn.Module]:
        """What training by low-rank updates trains in full."""
        return [self.routers]

    def logits(self, hidden: Tensor) -> Tensor:
        """(tokens, D) hidden states -> (tokens, vocabulary) next-token logits."""
        out: Tensor = self.head(hidden)
        return out.to(hidden.device)

    def _route(self, index: int, layer: Any, x: Tensor, stream: Stream) -> tuple[Tensor, Routing]:
        """Places of all vision tokens, and which of them run in layer ``index``."""
        n = self.config.tokens_per_frame
        vision = self._vision(stream.frame_starts).to(x.device)
        tokens = x[vision].view(-1, n, x.shape[1])
        attends = self.config.router == "attention"
        if attends and hasattr(layer, "unshard"):
            # Of FSDP2: its weights are whole within its own forward alone, which follows.
            layer.unshard()
        change = None if stream.change is None else stream.change.to(x.device)
        routing: Routing = self.routers[str(index)](
            tokens,
            stream.positions[..., stream.frame_starts]
            .reshape(-1, len(stream.frame_starts))[0]
            .to(x.device),
            self.config.tokens_in_layer(index),
            self.config.always_keep_decision,
            attended(layer, tokens) if attends else change,
        )
        return vision, routing

    def _vision(self, frame_starts: Tensor) -> Tensor:
        """Where vision tokens lie among all."""
        offsets = torch.arange(self.config.tokens_per_frame, device=frame_starts.device)
        return (frame_starts[:, None] + offsets).flatten()

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
