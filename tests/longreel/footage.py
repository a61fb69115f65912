"""Videos of plain light, of which the model of these tests has something to say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np

#: Pictures a second.
RATE = 10


def lights(path: Path, brightness: Sequence[int], container_format: str | None = None) -> str:
    """A video of half seconds, each as bright (0-255) as said; above 127 it is spoken of."""
    with av.open(str(path), "w", format=container_format) as container:
        stream: Any = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 96, 96, "yuv420p"
        stream.options = {"preset": "ultrafast", "tune": "zerolatency"}
        for value in brightness:
            picture = np.full((96, 96, 3), value, np.uint8)
            for _ in range(RATE // 2):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return str(path)
