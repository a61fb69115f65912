"""From a decoded frame to what leaves the actor: an upright RGB picture and a thumbnail."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from PIL import Image

from actors.hdr import is_hdr, to_sdr

JPEG_QUALITY = 80

Picture = npt.NDArray[np.uint8]


def display_matrix(frame: VideoFrame) -> tuple[int, int, int, int]:
    """Signs (a, b, c, d) of the display matrix: stored (x, y) is shown at (ax + cy, bx + dy).

    Quarter turns and mirrorings only, as players show them; anything between is rounded. The
    whole matrix matters: a mirrored picture has the same ``frame.rotation`` as an upturned one.
    """
    try:
        side_data = cast(Mapping[Type, Any], frame.side_data)  # typed by names, keyed by Type
        data = side_data.get(Type.DISPLAYMATRIX)
    except ValueError:  # side data of a kind that PyAV cannot name
        return _QUARTER_TURNS[round(frame.rotation / 90) % 4]
    if data is None:
        return 1, 0, 0, 1
    m = np.frombuffer(data, np.int32)
    a, b, c, d = int(m[0]), int(m[1]), int(m[3]), int(m[4])
    if abs(a) >= abs(b):
        return (-1 if a < 0 else 1), 0, 0, (-1 if d < 0 else 1)
    return 0, (-1 if b < 0 else 1), (-1 if c < 0 else 1), 0


# Counter-clockwise, as ``frame.rotation`` counts.
_QUARTER_TURNS = ((1, 0, 0, 1), (0, -1, 1, 0), (-1, 0, 0, -1), (0, 1, -1, 0))


def clockwise_degrees(frame: VideoFrame) -> int:
    """By how much the stored picture is turned to be upright: 0, 90, 180 or 270."""
    a, b, c, d = display_matrix(frame)
    if a * d - b * c < 0:  # mirrored: count the turn that follows a mirroring left to right
        a, b = -a, -b
    return {(1, 0): 0, (0, 1): 90, (-1, 0): 180, (0, -1): 270}[a, b]


def shown_size(frame: VideoFrame, sample_aspect_ratio: Fraction | None) -> tuple[int, int]:
    """(width, height) in square pixels of the upright picture."""
    width = frame.width * float(sample_aspect_ratio or 1)
    size = (max(1, math.floor(width + 0.5)), frame.height)
    return size if display_matrix(frame)[0] else size[::-1]


class PictureMaker:
    """Scales and turns the sampled frames of one stream.

    Scaling happens in the decoder's own format, before the turn, on one thread. One scaler per
    output size: a scaler set up anew for each frame costs more than the scaling.
    """

    def __init__(
        self, size: tuple[int, int], thumbnail_width: int, sample_aspect_ratio: Fraction | None
    ) -> None:
        self.size = size
        self._thumbnail_width = thumbnail_width
        self._sample_aspect_ratio = sample_aspect_ratio
        self._model_scaler = VideoReformatter()
        self._thumbnail_scaler = VideoReformatter()

    def model_input(self, frame: VideoFrame) -> Picture:
        """(h, w, 3) uint8 RGB, squashed to the model's size."""
        height, width = self.size
        return _upright(self._model_scaler, frame, width, height)

    def thumbnail(self, frame: VideoFrame) -> Picture | None:
        """(h, w, 3) uint8 RGB of at most the thumbnail width, aspect kept; None if it is 0."""
        if self._thumbnail_width == 0:
            return None
        shown_width, shown_height = shown_size(frame, self._sample_aspect_ratio)
        width = min(self._thumbnail_width, shown_width)
        height = max(1, round(shown_height * width / shown_width))
        return _upright(self._thumbnail_scaler, frame, width, height)


def jpeg(picture: Picture) -> bytes:
    """An (h, w, 3) RGB picture as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def _upright(scaler: VideoReformatter, frame: VideoFrame, width: int, height: int) -> Picture:
    """An RGB picture of (height, width) after the turn."""
    a, b, c, d = display_matrix(frame)
    stored_width, stored_height = (width, height) if a else (height, width)
    shrinks = frame.width > stored_width or frame.height > stored_height
    scaled = scaler.reformat(
        frame,
        width=stored_width,
        height=stored_height,
        format="rgb48le" if is_hdr(frame) else "rgb24",
        interpolation=Interpolation.AREA if shrinks else Interpolation.BICUBIC,
        threads=1,
    )
    stored: Any = scaled.to_ndarray()
    # Once it is small: swscale would do it in full size.
    picture: Picture = to_sdr(stored, frame) if is_hdr(frame) else stored
    if not a:
        picture = picture.transpose(1, 0, 2)
    if a + c < 0:
        picture = picture[:, ::-1]
    if b + d < 0:
        picture = picture[::-1]
    return np.ascontiguousarray(picture)
