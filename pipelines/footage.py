"""A user's own videos with timestamped narrations, as dialogues to train on.

Rows of Parquet, JSONL or CSV files: ``uri`` (relative paths are relative to the file), ``time_s``
(seconds on the video's clock), ``text``; where ``question`` is given, ``text`` is its answer.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from actors.decode import decode_segment
from actors.grid import exact, exact_fps, first_index_at, grid_size
from actors.objects import is_s3, join_uri, list_objects, normalize_uri
from actors.probe import VideoInfo, probe
from longreel.errors import LongreelError, StorageError, UsageError
from mod.dialogue import Dialogue, Turn
from pipelines.globs import has_wildcards, matching_objects
from pipelines.tables import EXTENSIONS, rows, text_in


@dataclass
class Clip:
    """One video with what is said about it, on the grid of the model's frames.

    Attributes:
        frames: how many grid points it has.
        texts: narration by the first grid index at or after its time.
        turns: questions with answers, likewise.
    """

    info: VideoInfo
    frames: int
    texts: dict[int, str] = field(default_factory=dict)
    turns: dict[int, list[tuple[str, str]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """What a row says of a video at ``time_s``; an answer where it has a question."""

    file: str
    uri: str
    time_s: float
    text: str
    question: str


def read_narrations(narrations: Sequence[str]) -> dict[str, list[Row]]:
    """The rows of ``narrations`` (files, folders or globs) by the uri of their video.

    Raises:
        UsageError: there is no row, or one that cannot be understood.
        StorageError: a file that cannot be read.
    """
    found: dict[str, list[Row]] = {}
    for file in _files(narrations):
        for row in _rows(file):
            found.setdefault(row.uri, []).append(row)
    if not found:
        raise UsageError(f"no row in {', '.join(narrations)}")
    return found


def read_footage(
    found: Mapping[str, Sequence[Row]], fps: float, warn: Callable[[str], None]
) -> list[Clip]:
    """The videos that rows speak of, probed.

    Args:
        found: as ``read_narrations`` gives them.
        warn: told of each video that cannot be used; the others go on.

    Raises:
        UsageError: nothing is usable at all.
    """
    clips = []
    with ThreadPoolExecutor(8) as pool:
        for (uri, about), info in zip(found.items(), pool.map(_probed, found), strict=True):
            if isinstance(info, LongreelError):
                named = "" if uri in str(info) else f" {uri}"
                warn(f"left out{named}: {info}")
                continue
            clips.append(_clip(info, about, fps, warn))
    if not clips:
        raise UsageError(f"no usable video among the {len(found)} that are narrated")
    return clips


def split(
    clips: Sequence[Clip], uris: Iterable[str], share: float
) -> tuple[list[Clip], list[Clip]]:
    """Clips to learn from and clips to measure on, by a hash of their uris.

    Args:
        uris: of all videos that are spoken of. Which can be read now may be another matter in each
            worker and after each retry; what is measured on must never be learned from.
        share: of those videos to measure on (0-1); at least one is left to learn from.

    Raises:
        UsageError: of the videos to learn from none is usable.
    """
    ranked = sorted(uris, key=lambda uri: hashlib.sha256(uri.encode()).digest())
    held = min(len(ranked) - 1, math.ceil(share * len(ranked))) if share else 0
    usable = {clip.info.uri: clip for clip in clips}
    learned, measured = (
        [usable[uri] for uri in part if uri in usable] for part in (ranked[held:], ranked[:held])
    )
    if not learned:
        raise UsageError(
            f"none of the {len(ranked) - held} videos to learn from is usable: those that are, "
            "data.held_out keeps to measure on"
        )
    return learned, measured


class Footage:
    """Dialogues from clips: a stretch of a video with the narrations and questions in it.

    Args:
        size: side of the model's pictures, in pixels.
        lengths: frames of a stretch; each batch draws one.
        batch_frames: frames of a batch.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        *,
        fps: float,
        size: int,
        lengths: Sequence[int],
        batch_frames: int,
    ) -> None:
        self._clips = list(clips)
        self._fps, self._size = fps, size
        self._lengths, self._batch_frames = list(lengths), batch_frames
        weights = np.array([clip.frames for clip in self._clips], float)
        self._shares = weights / weights.sum()

    def dialogues(self, step: int, rng: np.random.Generator) -> list[Dialogue]:
        """Stretches of videos, drawn by their length."""
        del step
        length = int(rng.choice(self._lengths))
        drawn = []
        for _ in range(max(1, self._batch_frames // length)):
            clip = self._clips[int(rng.choice(len(self._clips), p=self._shares))]
            start = int(rng.integers(0, max(1, clip.frames - length + 1)))
            drawn.append(self.stretch(clip, start, min(clip.frames, start + length)))
        return [dialogue for dialogue in drawn if len(dialogue.frames)] or self._any(rng)

    def _any(self, rng: np.random.Generator) -> list[Dialogue]:
        """A stretch of some other clip, when all drawn ones are damaged."""
        for index in rng.permutation(len(self._clips)):
            clip = self._clips[int(index)]
            dialogue = self.stretch(clip, 0, min(clip.frames, self._lengths[0]))
            if len(dialogue.frames):
                return [dialogue]
        raise LongreelError("not one frame of the footage can be decoded")

    def stretch(self, clip: Clip, start: int, end: int) -> Dialogue:
        """Grid points ``[start, end)`` of ``clip``; what is damaged is missing."""
        decoded = decode_segment(
            clip.info.uri,
            origin_pts=clip.info.origin_pts,
            first_index=start,
            end_index=end,
            fps=self._fps,
            size=(self._size, self._size),
            thumbnail_width=0,
            is_last=end == clip.frames,
            duration_s=clip.info.duration_s,
        )
        indices = decoded.indices.tolist()
        turns = [
            Turn(place + 1, question, answer)
            for place, index in enumerate(indices)
            for question, answer in clip.turns.get(index, [])
        ]
        return Dialogue(decoded.frames, [clip.texts.get(i) for i in indices], tuple(turns))


def _files(narrations: Sequence[str]) -> list[str]:
    files: list[str] = []
    for name in narrations:
        uri = normalize_uri(name)
        if has_wildcards(uri):
            files += [found.uri for found, _ in matching_objects(uri)]
        elif _is_table(uri):
            files.append(uri)
        else:
            files += [found.uri for found in list_objects(uri)]
    tables = [file for file in files if _is_table(file)]
    if not tables:
        raise UsageError(f"no Parquet, JSONL or CSV file in {', '.join(narrations)}")
    return tables


def _is_table(uri: str) -> bool:
    return uri[uri.rfind(".") :].lower() in EXTENSIONS


def _rows(file: str) -> list[Row]:
    found = []
    for number, row in enumerate(rows(file, ["uri", "time_s", "text"], ["question"]), start=1):
        uri, text = text_in(file, "uri", row["uri"]), text_in(file, "text", row["text"])
        question = text_in(file, "question", row["question"])
        time_s = _seconds(row["time_s"])
        if not uri or not text or time_s is None:
            lacking = "uri" if not uri else "text" if not text else "time_s of 0 or more"
            raise UsageError(f"row {number} of {file} has no {lacking}")
        try:
            if "://" not in uri and not uri.startswith("/"):
                folder = file.rpartition("/")[0]
                uri = join_uri(folder, uri) if is_s3(file) else normalize_uri(f"{folder}/{uri}")
            uri = normalize_uri(uri)
        except StorageError as failure:
            raise UsageError(f"row {number} of {file} has no usable uri: {failure}") from None
        found.append(Row(file, uri, time_s, text, question))
    return found


def _seconds(value: object) -> float | None:
    """A time as a row may give it; None where it is none."""
    if isinstance(value, bool):
        return None
    try:
        time_s = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return time_s if 0 <= time_s < math.inf else None


def _probed(uri: str) -> VideoInfo | LongreelError:
    try:
        return probe(uri)
    except LongreelError as failure:
        return failure


def _clip(info: VideoInfo, found: Sequence[Row], fps: float, warn: Callable[[str], None]) -> Clip:
    clip = Clip(info, grid_size(info.duration_s, fps))
    for row in sorted(found, key=lambda row: row.time_s):
        if row.time_s > info.duration_s:
            warn(
                f"left out: {row.text!r} at {row.time_s} s of {info.uri}, "
                f"which ends at {info.duration_s:.3f} s ({row.file})"
            )
            continue
        index = min(clip.frames - 1, first_index_at(exact(row.time_s), exact_fps(fps)))
        if row.question:
            clip.turns.setdefault(index, []).append((row.question, row.text))
        else:
            # Two things said at one frame are one narration.
            clip.texts[index] = " ".join(filter(None, [clip.texts.get(index), row.text]))
    return clip
