"""What the engine has to be told of a family of open models."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mod.families.chat import FrameText


class Family(Protocol):
    """One family: its pictures, their tokens, and the text around them.

    A frame's tokens are consecutive in the stream, as many for every frame, and take consecutive
    positions. ``base`` is the checkpoint's own config, ``model`` its own class with its weights.

    Attributes:
        content: what chat templates call its frames; ``mark`` what they write for them.
    """

    content: str
    mark: str

    def image_size(self, base: Any) -> int:
        """Side of the square pictures that the model takes, in pixels."""

    def tokens_per_frame(self, base: Any) -> int:
        """Tokens of one frame in the language model."""

    def decoder(self, model: Any) -> Any:
        """The language model without its head."""

    def see(self, model: Any, pixels: Tensor) -> Tensor:
        """Normalised pictures (frames, 3, side, side) to (frames, tokens_per_frame, D)."""

    def further_embeddings(self, model: Any) -> Tensor | None:
        """(n, D) learned tokens outside the vocabulary; their ids go on from its end."""

    def template(self, own: str | None) -> str | None:
        """The chat template for videos; ``own`` is the one that the checkpoint brings."""

    def frame_text(self, tokenizer: PreTrainedTokenizerBase, base: Any) -> FrameText:
        """The text around frames."""
