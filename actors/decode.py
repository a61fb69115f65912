"""One segment of a video to its pictures on the time grid, whatever state the file is in."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from actors.damage import Spoiled
from actors.grid import exact, exact_fps, first_index_at, grid_times
from actors.heap import give_back_holes, give_back_large_blocks
from actors.media import MEDIA_ERRORS, MOST_PIXELS, Media, Opener, last_end_s, open_media
from actors.sampler import Run, Samples, sample
from actors.thumbnails import Thumbnails
from actors.ticks import Wanted
from longreel.errors import UNUSABLE_ACCESS, StorageError, VideoError
from longreel.schemas import FAILED, OK, PARTIAL

#: A file that ends this much before its promised end was cut short.
_TRUNCATED_S = 1


@dataclass(frozen=True)
class DecodedSegment:
    """The pictures of one segment: n of them, one per grid point that has a healthy frame.

    Attributes:
        indices: (n,) int64, grid indices in order.
        times_s: (n,) float64, ``indices / fps``.
        frames: (n, h, w, 3) uint8, RGB, upright, squashed to the model's size.
        thumbnails: n JPEGs, upright, aspect kept, each made when it is taken; none if they were not
            asked for.
        status: ``ok``; ``partial`` when damage or a missing end lies in the segment; ``failed``
            when nothing of it could be had.
        error: One line, unless ``ok``.
        decode_s: Seconds spent.
    """

    indices: npt.NDArray[np.int64]
    times_s: npt.NDArray[np.float64]
    frames: npt.NDArray[np.uint8]
    thumbnails: Sequence[bytes]
    status: str
    error: str | None
    decode_s: float


def decode_segment(
    uri: str,
    *,
    etag: str | None = None,
    origin_pts: int,
    first_index: int,
    end_index: int,
    fps: float,
    size: tuple[int, int],
    thumbnail_width: int = 320,
    is_last: bool,
    duration_s: float,
    threads: int = 1,
    max_pixels: int | None = None,
    opener: Opener | None = None,
) -> DecodedSegment:
    """Samples grid indices ``[first_index, end_index)`` of a video.

    Seeks to a keyframe at or before the first grid point and decodes until the last one's frame is
    known; scales only frames that are sampled. The result does not depend on how the video was cut
    into segments. Errors of media and of one object become ``status`` and ``error``.

    Args:
        etag: If given, an object replaced since then fails.
        origin_pts: First frame shown, in ticks of the stream's time base (from the probe).
        fps: Grid points per second.
        size: (h, w) of the pictures.
        thumbnail_width: Of the JPEGs in pixels, less for smaller videos; 0 makes none.
        is_last: Whether the video should end with this segment.
        duration_s: What the probe promised, to notice an end that is missing.
        threads: Of the decoder. Segments side by side use the cores better.
        max_pixels: Of one frame as stored; larger ones are not decoded.
        opener: Of bytes that lie elsewhere; ``uri`` is only their name then.

    Raises:
        ValueError: The arguments describe no segment.
        StorageError: Of a kind in ``UNUSABLE_ACCESS``, which is no fault of the video.
    """
    if not 0 <= first_index < end_index:
        raise ValueError(f"[{first_index}, {end_index}) is no range of grid indices")
    wanted = Wanted(origin_pts, first_index, end_index, exact_fps(fps))
    started = time.perf_counter()
    samples = Samples([], np.empty((0, *size, 3), np.uint8), Thumbnails())
    error: str | None = None
    try:
        with open_media(uri, etag, max_pixels, opener) as media:
            run = sample(media, wanted, size, thumbnail_width, threads)
            spoiled = run.log.spoiled()
            samples = _healthy(run.samples, spoiled, wanted, media.time_base)
            problem = _truncation(media, run, spoiled, wanted, duration_s, is_last) or _damage(
                run, spoiled, wanted, media.time_base, len(samples.indices)
            )
            error = str(problem) if problem else None
    except (StorageError, VideoError) as failure:
        if failure.kind in UNUSABLE_ACCESS:
            raise
        # Storage failing half way: all of it again later, rather than a part now.
        error = str(failure)
    except MEDIA_ERRORS as failure:
        error = str(VideoError("Damaged", f"cannot be decoded ({type(failure).__name__})"))
    indices = np.asarray(samples.indices, np.int64)
    return DecodedSegment(
        indices=indices,
        times_s=grid_times(indices, fps),
        frames=samples.frames,
        thumbnails=samples.thumbnails,
        status=OK if error is None else PARTIAL if len(indices) else FAILED,
        error=error,
        decode_s=time.perf_counter() - started,
    )


def nothing_decoded(error: str) -> DecodedSegment:
    """Of a segment that was not even tried."""
    none, no_pictures = np.empty(0, np.int64), np.empty((0, 0, 0, 3), np.uint8)
    return DecodedSegment(none, none.astype(float), no_pictures, Thumbnails(), FAILED, error, 0.0)


def decode_planned(
    planned: Mapping[str, Any], side: int, thumbnail_width: int = 320
) -> DecodedSegment:
    """``decode_segment`` of one PLAN row, to pictures of ``side`` x ``side``.

    For a process that decodes segment after segment: its heap is told so.
    """
    give_back_large_blocks()
    decoded = decode_segment(
        planned["uri"],
        etag=planned["etag"],
        origin_pts=planned["origin_pts"],
        first_index=planned["first_index"],
        end_index=planned["end_index"],
        fps=planned["fps"],
        size=(side, side),
        thumbnail_width=thumbnail_width,
        is_last=planned["segment_index"] == planned["n_segments"] - 1,
        duration_s=planned["duration_s"],
        max_pixels=MOST_PIXELS,
    )
    give_back_holes()
    return decoded


def _healthy(samples: Samples, spoiled: Spoiled, wanted: Wanted, time_base: Fraction) -> Samples:
    """The samples whose picture was the one on screen and undamaged."""
    if not spoiled.packets:
        return samples
    kept = [
        i
        for i, (index, (packet, pts)) in enumerate(
            zip(samples.indices, samples.sources, strict=True)
        )
        if not spoiled.hides(packet, pts, wanted.tick(index, time_base))
    ]
    return Samples(
        [samples.indices[i] for i in kept],
        samples.frames[kept],
        samples.thumbnails.only(kept if samples.thumbnails else []),
    )


def _truncation(
    media: Media, run: Run, spoiled: Spoiled, wanted: Wanted, duration_s: float, is_last: bool
) -> VideoError | None:
    """Says so if the file ended before it should, and this segment lacks something for it."""
    if not run.at_end_of_file:
        return None
    end_s = wanted.seconds(run.end_pts, media.time_base)
    lacks = is_last or first_index_at(end_s, wanted.rate) < wanted.end_index
    promised_s = exact(duration_s)
    # A packet cut in two by the file's end is no damage of its own.
    if not (lacks or spoiled.roots) or promised_s - end_s <= _TRUNCATED_S:
        return None
    # Where only the whole file's length is known, sound may simply go on after the pictures.
    origin_s = wanted.origin_pts * media.time_base
    if origin_s + promised_s - last_end_s(media, run.end_pts) <= _TRUNCATED_S:
        return None
    return VideoError("Truncated", f"the file ends at {float(end_s):.1f} s of {duration_s:.1f} s")


def _damage(
    run: Run, spoiled: Spoiled, wanted: Wanted, time_base: Fraction, n_healthy: int
) -> VideoError | None:
    """Says what is damaged, if it lies in this segment or cost it a sample."""
    complete = n_healthy == wanted.end_index - wanted.first_index
    first_tick = wanted.tick(wanted.first_index, time_base)
    last_tick = wanted.tick(wanted.end_index, time_base) - 1
    if spoiled.roots and not (complete and not spoiled.touches(first_tick, last_tick)):
        root = spoiled.roots[0]
        when_s = float(wanted.seconds(run.log.pts(root), time_base))
        n = len(spoiled.roots)
        what = f"{n} damaged packets, first at" if n > 1 else "1 damaged packet, at"
        byte = run.log.position(root)
        return VideoError(
            "Damaged", f"{what} {when_s:.1f} s", f"byte {byte}" if byte >= 0 else None
        )
    if run.reached_end and not complete:
        return VideoError("Damaged", "no frame could be decoded at some of the times")
    return None
