"""One pass of the decoder over a stretch of a video, keeping the frames that grid points show."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
from av.packet import Packet
from av.video.frame import VideoFrame

from actors.damage import PacketLog
from actors.grid import first_index_at, held_indices
from actors.media import MEDIA_ERRORS, Mark, Media, can_skip, need_until, starts_before, timestamp
from actors.pictures import PictureMaker
from longreel.errors import VideoError

#: Packets between a picture and the one shown after it, at most; H.264 and HEVC allow 16.
_REORDERED = 32


@dataclass(frozen=True)
class Wanted:
    """Grid indices ``[first_index, end_index)`` of a clock that starts at ``origin_pts``."""

    origin_pts: int
    first_index: int
    end_index: int
    rate: Fraction

    def tick(self, index: int, time_base: Fraction) -> int:
        """The last tick at or before a grid point."""
        return self.origin_pts + math.floor(index / (self.rate * time_base))

    def seconds(self, pts: int, time_base: Fraction) -> Fraction:
        return (pts - self.origin_pts) * time_base


@dataclass(frozen=True)
class Samples:
    indices: list[int]
    frames: npt.NDArray[np.uint8]
    thumbnails: list[bytes]
    #: Of each sample: its packet's number in the log and its pts.
    sources: list[tuple[int, int]] = field(default_factory=list)


class Run:
    """One pass of the decoder, from a keyframe until the last grid point's frame is known."""

    def __init__(self, media: Media, wanted: Wanted, pictures: PictureMaker, threads: int) -> None:
        self.log = PacketLog()
        #: Whether the last grid point's frame is known.
        self.reached_end = False
        #: Whether the file ended before a frame came that is shown after it.
        self.at_end_of_file = False
        #: Where the last frame or packet ends, in ticks; meaningful once the file ended.
        self.end_pts = wanted.origin_pts
        self._media = media
        self._wanted = wanted
        self._pictures = pictures
        self._threads = threads
        self._frame = round(media.frame_s / media.time_base)
        self._packets_end = wanted.origin_pts
        self._can_skip = can_skip(media)
        self._recent: deque[int] = deque(maxlen=_REORDERED)
        self._held: tuple[VideoFrame, int, int] | None = None
        height, width = pictures.size
        n = wanted.end_index - wanted.first_index
        self._frames = np.empty((n, height, width, 3), np.uint8)
        self._indices: list[int] = []
        self._thumbnails: list[bytes] = []
        self._sources: list[tuple[int, int]] = []

    @property
    def samples(self) -> Samples:
        frames = self._frames[: len(self._indices)]
        return Samples(self._indices, frames, self._thumbnails, self._sources)

    def feed(self, packets: Iterator[Packet[Any]], is_beginning: bool) -> bool:
        """Decodes and samples; False if it began too late in the file to know the first frame."""
        for packet in packets:
            for frame in self._decode(packet):
                if not (self._take(frame) or is_beginning or self._damaged):
                    return False
            if self.reached_end:
                # What is still inside the decoder may yet turn out to be corrupt, and samples
                # were predicted from it.
                for frame in self._drain():
                    self._note(frame)
                return True
        self.at_end_of_file = True
        for frame in self._drain():
            if not (self._take(frame) or is_beginning or self._damaged):
                return False
        if self._held is None:
            return is_beginning or self._damaged
        frame, _, pts = self._held
        self.end_pts = max(self.end_pts, pts + (frame.duration or self._frame))
        self._show_until(self.end_pts)
        return True

    @property
    def _damaged(self) -> bool:
        return bool(self.log.spoiled().roots)

    def _decode(self, packet: Packet[Any]) -> list[VideoFrame]:
        pts = timestamp(packet)
        if pts is None:
            pts = self.log.pts(len(self.log) - 1)
        position = -1 if packet.pos is None else packet.pos
        if isinstance(packet.opaque, Mark) and packet.opaque.lost and len(self.log):
            # Stands for all that is missing: nothing is known to be on screen until this packet.
            self.log.mark([self.log.add(self._packets_end, position, False)])
        number = self.log.add(pts, position, packet.is_keyframe)
        self._packets_end = max(self._packets_end, pts + (packet.duration or self._frame))
        # The decoder knows of each codec which pictures nothing else is predicted from.
        self._media.stream.codec_context.skip_frame = (
            "NONREF" if self._can_skip and self._shows_nothing(pts) else "DEFAULT"
        )
        self._recent.append(pts)
        if packet.is_corrupt:
            self.log.mark([number])
        packet.opaque = Mark(number)
        try:
            return packet.decode()
        except MEDIA_ERRORS:
            # Frame threads report late: the packet may be any of those in work.
            self.log.mark(range(max(0, number - self._threads + 1), number + 1))
            return []

    def _shows_nothing(self, pts: int) -> bool:
        """Whether another picture takes this one's place before the next grid point.

        Known from the packets so far: what is shown after a picture that nothing refers to was
        decoded before it, wherever pictures are reordered at all.
        """
        wanted, time_base = self._wanted, self._media.time_base
        index = first_index_at(wanted.seconds(pts, time_base), wanted.rate)
        tick = wanted.tick(max(index, wanted.first_index), time_base)
        return any(pts < other <= tick for other in self._recent)

    def _drain(self) -> list[VideoFrame]:
        try:
            return self._media.stream.decode(None)
        except MEDIA_ERRORS:
            return []

    def _note(self, frame: VideoFrame) -> int:
        """The number of a frame's packet, marked if the frame is corrupt."""
        mark = frame.opaque
        number = mark.packet if isinstance(mark, Mark) else len(self.log) - 1
        if frame.is_corrupt:
            self.log.mark([number])
        return number

    def _take(self, frame: VideoFrame) -> bool:
        """Samples the frame before this one, now that its end is known; False if too late."""
        number, pts = self._note(frame), frame.pts
        # Pictures shown before the first keyframe lack their references.
        if pts is None or pts < self.log.pts(0):
            return True
        if self._held is None:
            wanted = self._wanted
            first_tick = wanted.tick(wanted.first_index, self._media.time_base)
            self._held = frame, number, pts
            return pts <= first_tick
        if pts >= self._held[2]:
            self._show_until(pts)
            self._held = frame, number, pts
        return True

    def _show_until(self, next_pts: int) -> None:
        """Samples the held frame wherever it is the one on screen."""
        assert self._held is not None
        frame, number, pts = self._held
        wanted, time_base = self._wanted, self._media.time_base
        next_s = wanted.seconds(next_pts, time_base)
        self.reached_end = first_index_at(next_s, wanted.rate) >= wanted.end_index
        indices = held_indices(
            wanted.seconds(pts, time_base), next_s, wanted.rate, wanted.first_index,
            wanted.end_index,
        )  # fmt: skip
        if not indices:
            return
        start = len(self._indices)
        self._frames[start : start + len(indices)] = self._pictures.model_input(frame)
        self._thumbnails += self._pictures.thumbnails(frame) * len(indices)
        self._sources += [(number, pts)] * len(indices)
        self._indices += indices


def sample(
    media: Media, wanted: Wanted, size: tuple[int, int], thumbnail_width: int, threads: int
) -> Run:
    context = media.stream.codec_context
    context.thread_count = threads
    context.thread_type = "FRAME" if threads > 1 else "NONE"
    context.copy_opaque = True
    pictures = PictureMaker(size, thumbnail_width, media.stream.sample_aspect_ratio)
    for packets, is_beginning in starts_before(
        media, wanted.tick(wanted.first_index, media.time_base)
    ):
        need_until(media, wanted.tick(wanted.end_index - 1, media.time_base))
        run = Run(media, wanted, pictures, threads)
        if run.feed(packets, is_beginning):
            return run
    raise VideoError("Damaged", "no keyframe can be read")
