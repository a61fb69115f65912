"""Globs over folders and over keys in S3, with one meaning for both."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator

from actors.objects import ObjectStat, is_s3, list_objects, stat_object
from longreel.errors import StorageError

_WILDCARD = re.compile(r"[*?\[]")


def has_wildcards(text: str) -> bool:
    """Whether a text contains ``*``, ``?`` or ``[``."""
    return _WILDCARD.search(text) is not None


def matching_objects(pattern: str) -> Iterator[tuple[ObjectStat, bool]]:
    """Every object that an absolute pattern matches, and whether by a folder that it lies in.

    ``*``, ``?`` and ``[...]`` stay within one name, ``**`` as a whole name spans any number of
    folders. Names that start with ``.`` or ``_`` only match where the pattern spells that out.

    Raises:
        StorageError: a place to look in cannot be listed.
    """
    yield from (_s3_matches(pattern) if is_s3(pattern) else _local_matches(pattern))


def pattern_regex(pattern: str) -> re.Pattern[str]:
    """A regular expression for one pattern; its group ``inside`` is what lies below a match."""
    names = pattern.rstrip("/").split("/")
    parts: list[str] = []
    for i, name in enumerate(names):
        last = i == len(names) - 1
        if name == "**":
            # As the last name it needs something to match, elsewhere it may be nothing.
            parts.append(".+" if last else "(?:[^/]+/)*")
        else:
            parts.append(_name_regex(name) + ("" if last else "/"))
    return re.compile("".join(parts) + r"(?P<inside>/.+)?", re.DOTALL)


def is_shown(path: str, pattern: str) -> bool:
    """Whether no name that a wildcard of ``pattern`` stood for is hidden.

    A pattern that itself has a name with a wildcard beginning with ``.`` or ``_`` shows those.
    """
    start = len(_literal_folder(pattern))
    spelled = {name[:1] for name in pattern[start:].split("/")}
    return all(n[:1] not in (".", "_") or n[:1] in spelled for n in path[start:].split("/"))


def _name_regex(name: str) -> str:
    parts: list[str] = []
    i = 0
    while i < len(name):
        # A "]" straight after the opening (or its "!") is a member of the set.
        end = name.find("]", i + 3 if name[i + 1 : i + 2] == "!" else i + 2)
        if name[i] == "[" and end > 0:
            members = name[i + 1 : end].replace("\\", r"\\").replace("[", r"\[")
            # A negated set must not match the slash between two names.
            negated = members.startswith("!")
            members = members[1:] if negated else members
            members = members.replace("^", r"\^").replace("]", r"\]")
            parts.append(f"[^/{members}]" if negated else f"[{members}]")
            i = end + 1
            continue
        parts.append({"*": "[^/]*", "?": "[^/]"}.get(name[i]) or re.escape(name[i]))
        i += 1
    return "".join(parts)


def _s3_matches(pattern: str) -> Iterator[tuple[ObjectStat, bool]]:
    bucket, _, keys = pattern.removeprefix("s3://").partition("/")
    if has_wildcards(bucket):
        raise StorageError("UnsupportedUri", f"{pattern} has a wildcard in the name of its bucket")
    literal = _WILDCARD.split(keys, maxsplit=1)[0]
    regex = pattern_regex(keys)
    for found in list_objects(f"s3://{bucket}/{literal}", whole_names=False, hidden=True):
        key = found.uri.removeprefix(f"s3://{bucket}/")
        match = regex.fullmatch(key)
        if match is not None and is_shown(key, keys):
            yield found, match["inside"] is not None


def _local_matches(pattern: str) -> Iterator[tuple[ObjectStat, bool]]:
    everything = pattern.rpartition("/")[2] == "**"
    for path in sorted(glob.iglob(pattern, recursive=True, include_hidden=True)):
        if not is_shown(path, pattern):
            continue
        if not os.path.isdir(path):
            yield _stat_or_empty(path), False
        elif not everything:
            yield from ((found, True) for found in list_objects(path))


def _literal_folder(pattern: str) -> str:
    """The part of a pattern before its first name with a wildcard, with its slash."""
    before = _WILDCARD.split(pattern, maxsplit=1)[0]
    return before[: before.rfind("/") + 1]


def _stat_or_empty(path: str) -> ObjectStat:
    """A dangling link is kept, as in a folder: opening it says what is wrong."""
    try:
        return stat_object(path)
    except StorageError:
        return ObjectStat(path, 0, "")
