"""LLaVA-OneVision: a SigLIP tower, patches pooled by two, Qwen2; a learned token ends a video."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mod.families.chat import FrameText
from mod.families.family import Family
from mod.layout import Parts


class LlavaOneVision(Family):
    """See ``Family``.

    Source: transformers' ``LlavaOnevisionModel.get_video_features``; arXiv 2408.03326.
    """

    def tokens_per_frame(self, base: Any, side: int) -> int:
        """The pooled grid: 14 x 14 of 27 x 27 patches in the published ones."""
        return math.ceil(side // base.vision_config.patch_size / 2) ** 2

    def see(self, model: Any, pixels: Tensor) -> Tensor:
        """See ``Family``; the token that ends a video is no frame's."""
        found: Tensor = model.model.get_video_features(pixels[None]).pooler_output[0]
        return found[:-1].view(len(pixels), -1, found.shape[-1])

    def further_embeddings(self, model: Any) -> Tensor:
        """The token that ends a video."""
        newline: Tensor = model.model.image_newline
        return newline[None]

    def frame_text(self, tokenizer: PreTrainedTokenizerBase, base: Any) -> FrameText:
        """See ``Family``."""
        return _Newline(base.get_text_config().vocab_size)


class _Newline(FrameText):
    def __init__(self, newline: int) -> None:
        self.end: Parts = [newline]
