"""Which pictures of one decoding run can be trusted.

A damaged packet spoils its own picture and every later one that may be predicted from it: all
that follow in decoding order up to the next keyframe, and of those after that keyframe the ones
shown before it. Damage may be noticed late, when a picture comes out of the reordering queue, so
packets are logged as they go in and pictures are judged at the end.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Spoiled:
    """``shown``: sorted times, in ticks, of untrusted pictures; ``roots``: the damaged packets."""

    packets: frozenset[int]
    shown: tuple[int, ...]
    roots: tuple[int, ...]

    def hides(self, packet: int, pts: int, tick: int) -> bool:
        """Whether the picture on screen at ``tick`` is not the healthy one shown from ``pts``."""
        if packet in self.packets:
            return True
        latest = bisect_right(self.shown, tick)
        return latest > 0 and self.shown[latest - 1] > pts

    def touches(self, first_tick: int, last_tick: int) -> bool:
        """Whether a picture shown between two ticks, both included, is spoiled."""
        after = bisect_right(self.shown, last_tick)
        return after > 0 and self.shown[after - 1] >= first_tick


class PacketLog:
    """The packets of one run in decoding order, numbered from 0; 17 bytes for each."""

    def __init__(self) -> None:
        self._pts = array("q")
        self._position = array("q")
        self._is_keyframe = bytearray()
        self._damaged: set[int] = set()

    def __len__(self) -> int:
        return len(self._pts)

    def add(self, pts: int, position: int, is_keyframe: bool) -> int:
        """Logs a packet; returns its number."""
        self._pts.append(pts)
        self._position.append(position)
        self._is_keyframe.append(is_keyframe)
        return len(self._pts) - 1

    def mark(self, packets: Iterable[int]) -> None:
        """Notes packets that failed to decode, or came out flagged as corrupt."""
        self._damaged.update(packets)

    def pts(self, packet: int) -> int:
        """When it is shown, in ticks of its stream."""
        return self._pts[packet]

    def position(self, packet: int) -> int:
        """Byte offset in the file, -1 where unknown."""
        return self._position[packet]

    def spoiled(self) -> Spoiled:
        """What the damage marked so far spoils.

        Pictures shown before the run's first keyframe do not count: their references lie before
        the run, so that they fail says nothing about the file.
        """
        start_pts = self._pts[0] if self._pts else 0
        packets: set[int] = set()
        roots: list[int] = []
        in_gop = before_gop = False
        key_pts = start_pts
        for packet in range(min(self._damaged, default=len(self)), len(self)):
            pts = self._pts[packet]
            if self._is_keyframe[packet]:
                in_gop, before_gop, key_pts = False, in_gop, pts
            if packet in self._damaged and pts >= start_pts:
                in_gop = True
                roots.append(packet)
            if in_gop or (before_gop and pts < key_pts):
                packets.add(packet)
        shown = tuple(sorted({self._pts[p] for p in packets}))
        return Spoiled(frozenset(packets), shown, tuple(roots))
