"""One pass of the decoder over a stretch of a video, keeping the frames that grid points show."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from av.packet import Packet
from av.video.frame import VideoFrame

from actors.damage import PacketLog
from actors.grid import held_indices
from actors.media import MEDIA_ERRORS, Mark, Media, can_skip, need_until, starts_before, timestamp
from actors.pictures import PictureMaker
from actors.restarts import restarts_of
from actors.thumbnails import Thumbnails
from actors.ticks import Ticks, Wanted
from longreel.errors import VideoError

#: Packets between a picture and the one shown after it, at most; H.264 and HEVC allow 16.
_REORDERED = 32
#: Packets that wait, at most, until it is known whether anything needs them; and their bytes.
_MOST_HELD, _MOST_HELD_BYTES = 1024, 16 * 2**20


@dataclass(frozen=True)
class Samples:
    """What was sampled, in the order of the grid.

    Attributes:
        indices: grid indices.
        frames: (indices, height, width, 3) RGB.
        thumbnails: JPEGs, where they were asked for.
    """

    indices: list[int]
    frames: npt.NDArray[np.uint8]
    thumbnails: Thumbnails
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
        self._ticks = Ticks(wanted, media.time_base)
        self._can_skip = can_skip(media)
        context = media.stream.codec_context
        self._restarts = restarts_of(context.name, context.extradata or b"")
        self._skips = False
        context.skip_frame = "DEFAULT"
        self._recent: deque[int] = deque(maxlen=_REORDERED)
        self._held: tuple[VideoFrame, int, int] | None = None
        height, width = pictures.size
        n = wanted.end_index - wanted.first_index
        self._frames = np.empty((n, height, width, 3), np.uint8)
        self._indices: list[int] = []
        self._thumbnails = Thumbnails()
        self._sources: list[tuple[int, int]] = []

    @property
    def samples(self) -> Samples:
        """What was sampled so far."""
        frames = self._frames[: len(self._indices)]
        return Samples(self._indices, frames, self._thumbnails, self._sources)

    def feed(self, packets: Iterator[Packet[Any]], is_beginning: bool) -> bool:
        """Decodes and samples; False if it began too late in the file to know the first frame."""
        for packet, is_needed in self._foreseen(packets):
            for frame in self._decode(packet, is_needed):
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

    def _foreseen(self, packets: Iterator[Packet[Any]]) -> Iterator[tuple[Packet[Any], bool]]:
        """Packets, and whether anything needs them.

        Nothing needs what follows the last picture that a grid point shows before the stream
        begins anew. So packets wait until a picture as late as the next grid point comes, or one
        with which it does. After damage all are needed: how far it goes shall be known.
        """
        ticks = self._ticks
        held: list[Packet[Any]] = []
        held_bytes = 0
        #: The next grid point; None once nothing waits any more.
        due: int | None = ticks.first if self._restarts else None
        for packet in packets:
            pts = timestamp(packet)
            waits = False
            if due is not None and pts is not None and not packet.is_discard:
                if held and packet.is_keyframe and self._begins_anew(packet):
                    yield from self._as_needed(held, pts)
                    held, held_bytes = [], 0
                waits = pts != due
                if pts >= due:
                    yield from ((each, True) for each in held)
                    held, held_bytes = [], 0
                    due = ticks.at_or_after(pts + 1) if pts < ticks.last else None
                    waits = waits and due is not None
            held.append(packet)
            held_bytes += packet.size
            fits = len(held) < _MOST_HELD and held_bytes < _MOST_HELD_BYTES
            if waits and fits and self._may_wait(packet):
                continue
            yield from ((each, True) for each in held)
            held, held_bytes = [], 0
        yield from ((each, True) for each in held)

    def _begins_anew(self, keyframe: Packet[Any]) -> bool:
        return bool(self._restarts and not self._damaged and self._restarts.at(bytes(keyframe)))

    def _may_wait(self, packet: Packet[Any]) -> bool:
        """Whether a packet may turn out to be one that nothing needs."""
        if packet.opaque is not None or packet.has_sidedata("new_extradata"):
            return False
        return not (packet.is_keyframe and self._restarts and self._restarts.carry_headers)

    def _as_needed(
        self, held: list[Packet[Any]], end_pts: int
    ) -> Iterator[tuple[Packet[Any], bool]]:
        """Packets that waited until the stream begins anew with a picture shown at ``end_pts``."""
        times = [pts for packet in held if (pts := timestamp(packet)) is not None]
        shown = sorted({*self._recent, *times, end_pts})
        needed = 0
        for number, pts in enumerate(times, 1):
            after = bisect_right(shown, pts)
            if after == len(shown) or self._ticks.at_or_after(pts) < shown[after]:
                needed = number
        if self._restarts and self._restarts.in_fields:
            needed += 1
        yield from ((packet, number < needed) for number, packet in enumerate(held))

    def _decode(self, packet: Packet[Any], is_needed: bool = True) -> list[VideoFrame]:
        pts = timestamp(packet)
        if pts is None:
            pts = self.log.pts(len(self.log) - 1)
        position = -1 if packet.pos is None else packet.pos
        if isinstance(packet.opaque, Mark) and packet.opaque.lost and len(self.log):
            # Stands for all that is missing: nothing is known to be on screen until this packet.
            self.log.mark([self.log.add(self._packets_end, position, False)])
        number = self.log.add(pts, position, packet.is_keyframe)
        self._packets_end = max(self._packets_end, pts + (packet.duration or self._frame))
        shows_nothing = self._can_skip and self._shows_nothing(pts)
        if not packet.is_discard:
            self._recent.append(pts)
        if packet.is_corrupt:
            self.log.mark([number])
        if not is_needed:
            return []
        if shows_nothing != self._skips:
            # The decoder knows of each codec which pictures nothing else is predicted from.
            context = self._media.stream.codec_context
            context.skip_frame = "NONREF" if shows_nothing else "DEFAULT"
            self._skips = shows_nothing
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
        tick = self._ticks.at_or_after(pts)
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
            self._held = frame, number, pts
            return pts <= self._ticks.first
        if pts >= self._held[2]:
            self._show_until(pts)
            self._held = frame, number, pts
        return True

    def _show_until(self, next_pts: int) -> None:
        """Samples the held frame wherever it is the one on screen."""
        assert self._held is not None
        frame, number, pts = self._held
        self.reached_end = self._ticks.last < next_pts
        if next_pts <= self._ticks.at_or_after(pts):
            return
        wanted, time_base = self._wanted, self._media.time_base
        indices = held_indices(
            wanted.seconds(pts, time_base), wanted.seconds(next_pts, time_base), wanted.rate,
            wanted.first_index, wanted.end_index,
        )  # fmt: skip
        if not indices:
            return
        start = len(self._indices)
        self._frames[start : start + len(indices)] = self._pictures.model_input(frame)
        if (thumbnail := self._pictures.thumbnail(frame)) is not None:
            self._thumbnails.add(thumbnail, len(indices))
        self._sources += [(number, pts)] * len(indices)
        self._indices += indices


def sample(
    media: Media, wanted: Wanted, size: tuple[int, int], thumbnail_width: int, threads: int
) -> Run:
    """Decode from the last keyframe that is early enough for the first wanted grid point.

    Args:
        size: height and width of the sampled frames, in pixels.
        thumbnail_width: in pixels; 0 makes none.
        threads: of the decoder.

    Raises:
        VideoError: there is no such keyframe.
    """
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
