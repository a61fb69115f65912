"""Which keyframes of a video a page shows, where they lie, and how many bytes they take."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from longreel.digest import Row
from longreel.readable import number

#: Longest edge of a thumbnail in pixels: sharp at twice the size at which the page shows it.
EDGE = 288
#: A JPEG that is small already goes in as it is.
SMALL_BYTES = 12_000
_QUALITIES = (78, 62, 45)
_MAX_PIXELS = 64_000_000


@dataclass(frozen=True)
class Thumbnail:
    """A picture ready for a page: JPEG bytes and its size in pixels."""

    jpeg: bytes
    width: int
    height: int

    @property
    def data_uri(self) -> str:
        """The picture as a ``data:`` URI."""
        return "data:image/jpeg;base64," + base64.b64encode(self.jpeg).decode("ascii")


def choose(keyframes: Sequence[Row], duration_s: float, limit: int) -> list[Row]:
    """Return at most ``limit`` keyframes, in order of time and spread over the video.

    Every stretch of ``duration_s / limit`` seconds gives its best-scored one; stretches without
    any leave their place to the best of the rest.
    """
    ordered = sorted(keyframes, key=lambda each: number(each.get("time_s")))
    if len(ordered) <= limit or limit < 1:
        return ordered[: max(limit, 0)]
    stretch = max(duration_s, number(ordered[-1].get("time_s")), 1e-9) / limit
    ranked = sorted(range(len(ordered)), key=lambda i: (-number(ordered[i].get("score")), i))
    first: dict[int, int] = {}
    for index in ranked:
        bin_ = min(int(number(ordered[index].get("time_s")) / stretch), limit - 1)
        first.setdefault(bin_, index)
    picked = set(first.values())
    picked.update([index for index in ranked if index not in picked][: limit - len(picked)])
    return [ordered[index] for index in sorted(picked)]


def spread(centres: Sequence[float], width: float) -> list[float]:
    """Return left edges for items ``width`` wide on a line of 100 so that none overlap.

    ``centres`` is in ascending order. Each item stays as near to its centre as its neighbours
    allow (least squares, by pooling the items that push each other); when ``len(centres) * width``
    exceeds 100 they are spaced evenly instead.
    """
    if len(centres) * width >= 100 - 1e-9:
        step = (100 - width) / max(len(centres) - 1, 1)
        return [index * step for index in range(len(centres))]
    # With i * width taken off, "no overlap" reads "never descending": isotonic regression.
    pools: list[tuple[float, int]] = []
    for index, centre in enumerate(centres):
        mean, members = centre - width / 2 - index * width, 1
        while pools and pools[-1][0] > mean:
            other, others = pools.pop()
            mean = (mean * members + other * others) / (members + others)
            members += others
        pools.append((mean, members))
    flat = [mean for mean, members in pools for _ in range(members)]
    last = 100 - len(centres) * width
    return [min(max(mean, 0.0), last) + index * width for index, mean in enumerate(flat)]


def thumbnail(jpeg: bytes | None, max_bytes: int = SMALL_BYTES) -> Thumbnail | None:
    """Return the JPEG, made smaller where it exceeds ``EDGE`` pixels or ``max_bytes``.

    None when the bytes are no readable JPEG or cannot be brought below ``max_bytes``.
    """
    if not jpeg:
        return None
    try:
        with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as image:
            if image.width * image.height > _MAX_PIXELS:
                return None
            if max(image.size) <= EDGE and len(jpeg) <= max_bytes:
                image.load()
                return Thumbnail(jpeg, image.width, image.height)
            image.draft("RGB", (EDGE, EDGE))
            small = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    small.thumbnail((EDGE, EDGE))
    for quality in _QUALITIES:
        out = io.BytesIO()
        small.save(out, "JPEG", quality=quality, optimize=True)
        if out.tell() <= max_bytes:
            return Thumbnail(out.getvalue(), small.width, small.height)
    return None
