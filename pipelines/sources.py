"""From what a user names (files, folders, globs, S3 prefixes, manifests) to a list of videos.

Nothing is opened here but manifests: whether an object is a video is found when it is probed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from actors.objects import (
    ObjectStat,
    exists,
    is_s3,
    join_uri,
    list_objects,
    normalize_uri,
    printable_uri,
    stat_object,
)
from longreel.errors import UNUSABLE_ACCESS, StorageError, UsageError
from pipelines.globs import has_wildcards, matching_objects
from pipelines.manifests import MANIFEST_EXTENSIONS, manifest_uris

#: What counts as a video in a folder, a prefix, or a glob that names no extension itself.
VIDEO_EXTENSIONS = frozenset(
    f".{name}"
    for names in (
        ("3g2", "3gp", "asf", "avi", "divx", "f4v", "flv", "m1v", "m2t", "m2ts", "m2v", "m4v"),
        ("mkv", "mov", "mp4", "mpeg", "mpg", "mts", "mxf", "ogm", "ogv", "rm", "rmvb", "ts"),
        ("vob", "webm", "wmv", "y4m"),
    )
    for name in names
)


@dataclass(frozen=True)
class SourceVideo:
    """One video to work on, or one source that gave none.

    ``size_bytes`` and ``etag`` are None where nothing was looked up (entries of a manifest).
    ``error`` is ``"Kind: message"`` when this cannot be used; it then still gets its row.
    """

    uri: str
    size_bytes: int | None
    etag: str | None
    error: str | None = None


@dataclass(frozen=True)
class Sources:
    """The videos in the order of the sources, each once; inside a folder, by uri."""

    videos: tuple[SourceVideo, ...]


def expand_sources(
    sources: Sequence[str], *, extensions: Iterable[str] = VIDEO_EXTENSIONS
) -> Sources:
    """Every video that the sources name.

    A source is a file or key with any extension, a folder or S3 prefix (searched recursively for
    ``extensions``, which are lower case with a dot), a glob (``*``, ``?``, ``[``, ``**``), or a
    manifest (``.csv``, ``.jsonl``, ``.parquet``) with a ``uri`` column whose relative paths are
    relative to the manifest. Where a thing of just that name exists, wildcards in it mean
    nothing. ``s3://bucket/cam1`` is the folder ``cam1/``, or where there is none, every key that
    starts so. A source that cannot be used becomes an entry with an error beside the others.

    Raises:
        UsageError: nothing at all can be used, or a manifest cannot be understood.
        StorageError: of a kind in ``UNUSABLE_ACCESS``.
    """
    wanted = frozenset(extensions)
    videos: dict[str, SourceVideo] = {}
    for source in sources:
        for video in map(_storable, _expand(source, wanted)):
            videos.setdefault(video.uri, video)
    if not any(video.error is None for video in videos.values()):
        problems = [video.error for video in videos.values() if video.error is not None]
        raise UsageError("; ".join(problems) or "no source is given")
    return Sources(tuple(videos.values()))


def _expand(source: str, extensions: frozenset[str]) -> Iterator[SourceVideo]:
    """The videos of one source; its failure comes last, after what was found before it."""
    uri = printable_uri(source)
    found = 0
    try:
        uri = normalize_uri(source)
        for video in _videos(uri, extensions):
            found += 1
            yield video
        if not found:
            raise StorageError("NotFound", f"{uri} has no {_expected(uri)}")
    except StorageError as error:
        if error.kind in UNUSABLE_ACCESS:
            raise
        yield SourceVideo(uri, None, None, str(error))


def _expected(uri: str) -> str:
    if _extension(uri) in MANIFEST_EXTENSIONS:
        return "entries"
    return "match" if has_wildcards(uri) else "video files in it"


def _videos(uri: str, extensions: frozenset[str]) -> Iterator[SourceVideo]:
    if _extension(uri) in MANIFEST_EXTENSIONS and not _is_pattern(uri):
        yield from _manifest_videos(uri)
    elif _is_pattern(uri):
        yield from _glob_videos(uri, extensions)
    elif is_s3(uri):
        yield from _s3_videos(uri, extensions)
    elif os.path.isdir(uri):
        yield from _filtered(list_objects(uri), extensions)
    else:
        yield _video(stat_object(uri))


def _is_pattern(uri: str) -> bool:
    """Whether the wildcards in a uri are meant as such, not part of an existing name."""
    if not has_wildcards(uri):
        return False
    return not (exists(uri) if is_s3(uri) else os.path.lexists(uri))


def _s3_videos(uri: str, extensions: frozenset[str]) -> Iterator[SourceVideo]:
    bucket_only = "/" not in uri.removeprefix("s3://").rstrip("/")
    if not bucket_only and not uri.endswith("/"):
        try:
            yield _video(stat_object(uri))
            return
        except StorageError as error:
            if error.kind != "NotFound":
                raise
    anything = False
    for found in list_objects(uri):
        anything = True
        yield from _filtered([found], extensions)
    if not anything and not bucket_only and not uri.endswith("/"):
        for found in list_objects(uri, whole_names=False):
            anything = True
            yield from _filtered([found], extensions)
    if not anything:
        raise StorageError("NotFound", f"{uri} is neither an object nor the start of any key")


def _glob_videos(pattern: str, extensions: frozenset[str]) -> Iterator[SourceVideo]:
    extension = _extension(pattern)
    # A pattern such as *.bin asks for just that; one such as 2024* for the videos among them.
    explicit = bool(extension) and not has_wildcards(extension)
    for found, inside_folder in matching_objects(pattern):
        if explicit and not inside_folder:
            if _extension(found.uri) in MANIFEST_EXTENSIONS:
                yield from _manifest_videos(found.uri)
            else:
                yield _video(found)
        else:
            yield from _filtered([found], extensions)


def _manifest_videos(manifest: str) -> Iterator[SourceVideo]:
    folder = manifest.rpartition("/")[0]
    for number, text in enumerate(manifest_uris(manifest), start=1):
        try:
            if not text:
                raise StorageError("NotFound", f"entry {number} of {manifest} has no uri")
            if "://" in text or (text.startswith("/") and is_s3(folder)):
                uri = normalize_uri(text)
            else:
                # Not resolved: following the links in 100 000 paths takes as many round trips.
                uri = join_uri(folder, text)
            yield SourceVideo(uri, None, None)
        except StorageError as error:
            uri = printable_uri(text) if text else f"{manifest}#{number}"
            yield SourceVideo(uri, None, None, str(error))


def _storable(video: SourceVideo) -> SourceVideo:
    """The video itself, or its error where its name is bytes that no row can hold."""
    try:
        video.uri.encode()
    except UnicodeEncodeError:
        uri = video.uri.encode(errors="backslashreplace").decode()
        return SourceVideo(uri, None, None, f"UnsupportedUri: the name of {uri} is not UTF-8")
    return video


def _filtered(found: Iterable[ObjectStat], extensions: frozenset[str]) -> Iterator[SourceVideo]:
    return (_video(stat) for stat in found if _extension(stat.uri) in extensions)


def _video(found: ObjectStat) -> SourceVideo:
    return SourceVideo(found.uri, found.size_bytes, found.etag)


def _extension(uri: str) -> str:
    return os.path.splitext(uri)[1].lower()
