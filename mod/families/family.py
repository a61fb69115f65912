"""What the engine has to be told of a family of open models."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mod.families.chat import FrameText
from mod.places import Places


class Family:
    """One family: its pictures, their tokens, and the text around them.

    A frame's tokens are consecutive in the stream, as many for every frame. ``base`` is the
    checkpoint's own config, ``model`` its own class with its weights, ``side`` that of the square
    pictures in pixels.

    Attributes:
        content: what chat templates call its frames; ``mark`` what they write for them.
        frames_per_step: how many frames it sees as one, whose tokens are those of one frame.
    """

    content, mark = "video", "<video>"
    frames_per_step = 1

    def image_size(self, base: Any, wanted: int | None) -> int:
        """Side of the square pictures that the model takes, in pixels.

        Raises:
            ValueError: it cannot take those of the ``wanted`` size.
        """
        own = int(base.vision_config.image_size)
        if wanted not in (None, own):
            raise ValueError(f"its pictures have {own} pixels a side, not {wanted}")
        return own

    def tokens_per_frame(self, base: Any, side: int) -> int:
        """Tokens of one frame in the language model."""
        raise NotImplementedError

    def places(self, base: Any, side: int, fps: float) -> Places:
        """How frames lie along the axes of its positions; here all tokens follow each other."""
        return Places.line(self.tokens_per_frame(base, side))

    def decoder(self, model: Any) -> Any:
        """The language model without its head."""
        return model.model.language_model

    def see(self, model: Any, pixels: Tensor) -> Tensor:
        """Normalised pictures (frames, 3, side, side) to (steps, tokens_per_frame, D).

        What the tower tells further layers follows along D.
        """
        raise NotImplementedError

    def further_embeddings(self, model: Any) -> Tensor | None:
        """(n, D) learned tokens outside the vocabulary; their ids go on from its end."""
        return None

    def template(self, own: str | None) -> str | None:
        """The chat template for videos; ``own`` is the one that the checkpoint brings."""
        return own

    def frame_text(self, tokenizer: PreTrainedTokenizerBase, base: Any) -> FrameText:
        """The text around frames; here none."""
        return FrameText()
