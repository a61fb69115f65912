"""Idefics3 and SmolVLM2: a SigLIP tower, pixel shuffle, Llama; marks and times around frames."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mod.families.chat import FrameText
from mod.families.family import Family
from mod.layout import Parts

#: Stands before the tokens of a whole picture, as opposed to a part of one.
_WHOLE = "<global-img>"


class Idefics3(Family):
    """See ``Family``; frames are pictures that are not split.

    Source: transformers' ``Idefics3Model.get_image_features``; arXiv 2408.12637.
    """

    content, mark = "image", "<image>"

    def tokens_per_frame(self, base: Any, side: int) -> int:
        """Patches, a square of ``scale_factor`` shuffled into one."""
        return int((side // base.vision_config.patch_size) ** 2 / base.scale_factor**2)

    def decoder(self, model: Any) -> Any:
        """See ``Family``."""
        return model.model.text_model

    def see(self, model: Any, pixels: Tensor) -> Tensor:
        """See ``Family``.

        A picture of zeros alone would pass for padding, which transformers leaves out, and so it
        does not go through its ``get_image_features``.
        """
        network = model.model
        side = pixels.shape[-1] // network.config.vision_config.patch_size
        all_of_it = torch.ones(len(pixels), side, side, dtype=torch.bool, device=pixels.device)
        seen = network.vision_model(pixel_values=pixels, patch_attention_mask=all_of_it)
        out: Tensor = network.connector(seen.last_hidden_state)
        return out

    def frame_text(self, tokenizer: PreTrainedTokenizerBase, base: Any) -> FrameText:
        """See ``Family``."""
        return _Marks(tokenizer)


class SmolVLM(Idefics3):
    """See ``Idefics3``; it is told when frames are, and how many of them where that is known.

    Source: transformers' ``SmolVLMProcessor.replace_video_token``; arXiv 2504.05299.
    """

    content, mark = "video", "<video>"

    def template(self, own: str | None) -> str:
        """The one that transformers takes for videos, whatever the checkpoint brings."""
        from transformers.models.smolvlm.processing_smolvlm import DEFAULT_CHAT_TEMPLATE

        return str(DEFAULT_CHAT_TEMPLATE)

    def frame_text(self, tokenizer: PreTrainedTokenizerBase, base: Any) -> FrameText:
        """See ``Family``."""
        return _Times(tokenizer)


class _Marks(FrameText):
    """Marks before and after each frame."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        around = tokenizer.convert_tokens_to_ids("<fake_token_around_image>")
        if around is None or around == tokenizer.unk_token_id:
            raise ValueError("the tokenizer lacks the mark '<fake_token_around_image>'")
        self.after = (int(around),)
        # Idefics3 was published without a token of its own for it.
        own = tokenizer.get_added_vocab().get(_WHOLE)
        self._ahead: Parts = [int(around), _WHOLE if own is None else own]
        # A byte is a token at most.
        self.most_tokens = 2 + len(_WHOLE)

    def before(self, time_s: float) -> Parts:
        """The marks."""
        return self._ahead


class _Times(_Marks):
    """The marks, and before them the time of each frame."""

    end: Parts = ("\n\n",)

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__(tokenizer)
        self.most_tokens += len("\nFrame from 00000:00:")

    def begin(self, expected: int | None, fps: float) -> Parts:
        """How many frames of how long a video; of a live stream nobody knows."""
        if expected is None:
            return ["You are provided the following series of frames from a live video.\n"]
        # Here, as in transformers: of all families this one alone needs it.
        from num2words import num2words

        length = timedelta(seconds=int(expected / fps))
        count = num2words(expected)
        return [
            f"You are provided the following series of {count} frames from a {length} "
            "[H:MM:SS] video.\n"
        ]

    def before(self, time_s: float) -> Parts:
        """The frame's time, then the marks."""
        minutes, seconds = divmod(int(time_s), 60)
        return [f"\nFrame from {minutes:02d}:{seconds:02d}:", *self._ahead]
