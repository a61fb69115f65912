"""LLaVA-OneVision: a SigLIP tower, patches pooled by two, Qwen2; a learned token ends a video."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mod.families.chat import FrameText
from mod.layout import Parts


class LlavaOneVision:
    """See ``mod.families.family.Family``.

    Source: transformers' ``LlavaOnevisionModel.get_video_features``; arXiv 2408.03326.
    """

    content, mark = "video", "<video>"

    def image_size(self, base: Any) -> int:
        """384 in the published ones."""
        return int(base.vision_config.image_size)

    def tokens_per_frame(self, base: Any) -> int:
        """The pooled grid: 14 x 14 of 27 x 27 patches in the published ones."""
        side = base.vision_config.image_size // base.vision_config.patch_size
        return math.ceil(side / 2) ** 2

    def decoder(self, model: Any) -> Any:
        """See ``Family``."""
        return model.model.language_model

    def see(self, model: Any, pixels: Tensor) -> Tensor:
        """See ``Family``; the token that ends a video is no frame's."""
        found: Tensor = model.model.get_video_features(pixels[None]).pooler_output[0]
        return found[:-1].view(len(pixels), -1, found.shape[-1])

    def further_embeddings(self, model: Any) -> Tensor:
        """The token that ends a video."""
        newline: Tensor = model.model.image_newline
        return newline[None]

    def template(self, own: str | None) -> str | None:
        """The checkpoint's."""
        return own

    def frame_text(self, tokenizer: PreTrainedTokenizerBase, base: Any) -> FrameText:
        """See ``Family``."""
        return _Newline(base.get_text_config().vocab_size)


class _Newline(FrameText):
    def __init__(self, newline: int) -> None:
        self.end: Parts = [newline]
