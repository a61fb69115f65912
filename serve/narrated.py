"""What a replica answers; apart from it, so that a worker can read answers without torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Narrated:
    """What the model made of one segment's frames.

    Attributes:
        texts: per frame, the narration or None for silence.
        salience: per frame, the probability with which the model wanted to speak (0-1).
        summary: one or a few sentences.
        vision_tokens: vision tokens that entered the decoder.
        processed_token_layers: token-layers that ran for vision tokens.
        kv_bytes: bytes of keys and values at the end of the segment.
        model_s: seconds in the model.
    """

    texts: list[str | None]
    salience: list[float]
    summary: str
    vision_tokens: int
    processed_token_layers: int
    kv_bytes: int
    model_s: float
