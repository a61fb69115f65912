"""An encoded piece of video decoded in this process, as decoding processes do it."""

from __future__ import annotations

from serve.decoding.media import decode_piece
from serve.live.items import Pixels
from serve.routes.context import ApiSettings


def piece_frames(
    data: bytes, side: int, fps: float, settings: ApiSettings
) -> list[tuple[float, Pixels]]:
    """All of its frames: (seconds since the first one, pixels)."""
    stretches = decode_piece(data, side, fps, settings)
    return [each for part in stretches for each in zip(part.times_s, part.frames, strict=True)]
