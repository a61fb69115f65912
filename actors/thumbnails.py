"""The thumbnails of a segment, encoded when they are wanted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

from actors.pictures import Picture, jpeg

#: Pictures kept for one segment, in bytes: 380 of 320 x 180.
MOST_BYTES = 64 * 2**20


class Thumbnails(Sequence[bytes]):
    """JPEGs of a segment's pictures, each made when it is asked for: few ever are.

    Until then the picture is kept; once ``most_bytes`` are, those that come are encoded at once.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._kept: list[Picture | bytes] = []
        self._room = most_bytes

    def add(self, picture: Picture, times: int = 1) -> None:
        """Append one (h, w, 3) RGB picture, ``times`` times in a row."""
        self._room -= picture.nbytes
        kept = picture if self._room >= 0 else jpeg(picture)
        self._kept += [kept] * times

    def only(self, places: Sequence[int]) -> Thumbnails:
        """Those at some places."""
        some = Thumbnails(0)
        some._kept = [self._kept[place] for place in places]
        return some

    def __len__(self) -> int:
        return len(self._kept)

    @overload
    def __getitem__(self, place: int) -> bytes: ...
    @overload
    def __getitem__(self, place: slice) -> list[bytes]: ...
    def __getitem__(self, place: int | slice) -> bytes | list[bytes]:
        if isinstance(place, slice):
            return [_encoded(kept) for kept in self._kept[place]]
        return _encoded(self._kept[place])


def _encoded(kept: Picture | bytes) -> bytes:
    return kept if isinstance(kept, bytes) else jpeg(kept)
