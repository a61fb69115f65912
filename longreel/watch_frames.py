"""Frames for a session out of what lies on this machine, as pictures with their times."""

from __future__ import annotations

import glob
import math
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from longreel.errors import UsageError, VideoError

#: Width of the pictures that are sent, at most; the model sees less.
_WIDTH = 640
#: Seconds of a file that are decoded in one go: the first picture comes soon, and seeking is rare.
_PIECE_S = 8.0
_PICTURES = (".jpg", ".jpeg", ".png", ".webp")
# The decoder's own scaled picture is not wanted.
_SMALLEST = (16, 16)


class Shot(NamedTuple):
    """An encoded picture, and when it is shown, in seconds from the beginning."""

    time_s: float
    picture: bytes


class Shots(NamedTuple):
    """Shots in order; ``paced`` where they come faster than they are shown."""

    shots: Iterator[Shot]
    paced: bool


def shots_of(source: str, fps: float, note: Callable[[str], None]) -> Shots:
    """The frames of a file, folder, glob, URL or standard input on the grid of ``fps``.

    Args:
        note: told what is amiss and does not end it, such as damage.

    Raises:
        UsageError: there is nothing of that name.
        LongreelError: it cannot be read; also while it is iterated over.
    """
    if source == "-":
        return Shots(_streamed(_Unseekable(), fps), paced=False)
    if "://" in source and not source.startswith("s3://"):
        return Shots(_streamed(source, fps), paced=False)
    if os.path.isdir(source):
        pictures = [p for p in sorted(Path(source).iterdir()) if p.suffix.lower() in _PICTURES]
    elif glob.has_magic(source) and not os.path.exists(source):
        pictures = [Path(p) for p in sorted(glob.glob(source, recursive=True))]
    elif os.path.isfile(source) and source.lower().endswith(_PICTURES):
        pictures = [Path(source)]
    elif os.path.isfile(source) or source.startswith("s3://"):
        return Shots(_file(source, fps, note), paced=True)
    else:
        raise UsageError(f"no video, folder or glob of pictures: {source!r}")
    if not pictures:
        raise UsageError(f"no pictures ({', '.join(_PICTURES)}) in {source!r}")
    return Shots(_stills(pictures, fps), paced=True)


def _stills(paths: list[Path], fps: float) -> Iterator[Shot]:
    for number, path in enumerate(paths):
        try:
            yield Shot(number / fps, path.read_bytes())
        except OSError as failure:
            raise UsageError(f"cannot read {path}: {failure.strerror}") from None


def _file(uri: str, fps: float, note: Callable[[str], None]) -> Iterator[Shot]:
    """A file's frames as bulk jobs would sample them, whatever state it is in."""
    from actors.decode import decode_segment
    from actors.grid import grid_size
    from actors.probe import probe

    info = probe(uri)
    end, step = grid_size(info.duration_s, fps), max(1, math.ceil(_PIECE_S * fps))
    said = set()
    for first in range(0, end, step):
        last = min(first + step, end)
        piece = decode_segment(
            uri,
            etag=info.etag,
            origin_pts=info.origin_pts,
            first_index=first,
            end_index=last,
            fps=fps,
            size=_SMALLEST,
            thumbnail_width=_WIDTH,
            is_last=last == end,
            duration_s=info.duration_s,
        )
        if piece.error is not None and piece.error not in said:
            said.add(piece.error)
            note(piece.error)
        yield from map(Shot, piece.times_s.tolist(), piece.thumbnails)


def _streamed(opened: Any, fps: float) -> Iterator[Shot]:
    """Frames as they arrive: the first one at or after each point of the grid.

    Each has its point's time, so that two are never closer than the session's fps allows.
    """
    import av

    from actors.media import MEDIA_ERRORS
    from actors.pictures import PictureMaker, jpeg

    options = {"rtsp_transport": "tcp"} if str(opened).startswith("rtsp") else {}
    try:
        container = av.open(opened, "r", options=options)
    except MEDIA_ERRORS as failure:
        raise VideoError("NotAVideo", f"it cannot be opened ({_reason(failure)})") from None
    with container:
        if not container.streams.video:
            raise VideoError("NoVideoStream", "it has no pictures")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        pictures = PictureMaker(_SMALLEST, _WIDTH, stream.sample_aspect_ratio)
        origin, due = None, 0
        try:
            for frame in container.decode(stream):
                if frame.pts is None or frame.time is None:
                    continue
                origin = frame.time if origin is None else origin
                point = math.floor((frame.time - origin) * fps + 1e-6)
                if point >= due:
                    due = point + 1
                    thumbnail = pictures.thumbnail(frame)
                    assert thumbnail is not None
                    yield Shot(point / fps, jpeg(thumbnail))
        except MEDIA_ERRORS as failure:
            raise VideoError("Damaged", f"it broke off ({_reason(failure)})") from None


def _reason(failure: Exception) -> str:
    return getattr(failure, "strerror", None) or type(failure).__name__


class _Unseekable:
    """Standard input with nothing but ``read``, so that no demuxer tries to seek in a pipe."""

    def read(self, size: int) -> bytes:
        # Past Python's own buffer: its lock must be free when the process ends.
        return os.read(sys.stdin.fileno(), size)
