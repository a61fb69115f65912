"""How times, sizes, counts, names and errors are written for people.

File names and narrations come from outside: whatever is shown passes through ``visible``,
``visible_lines`` or ``prose`` first, so that no control character reaches a terminal or a page.
"""

from __future__ import annotations

import html
import math
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from rich.cells import cell_len

#: What stands where a figure is not known.
UNKNOWN = "\N{EN DASH}"
TIMES = "\N{MULTIPLICATION SIGN}"

# Characters that reorder or hide the text around them: a name could otherwise pose as another.
_DISGUISE = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029\ufeff")

_PLAIN = {
    "Empty": "The file is empty.",
    "NotAVideo": "This is not a video file.",
    "NoVideoStream": "The file has no pictures, only sound or other data.",
    "Truncated": "The file ends before the video does.",
    "Damaged": "Part of the file is damaged.",
    "NoSuchBucket": "The bucket does not exist.",
    "NotFound": "The file is no longer there.",
    "AccessDenied": "Reading the file was refused.",
}


def number(value: Any) -> float:
    """Return ``value`` as a finite float; 0.0 for None, NaN and infinities."""
    if value is None:
        return 0.0
    found = float(value)
    return found if math.isfinite(found) else 0.0


def is_unicode(text: str) -> bool:
    """Whether ``text`` can be sent and stored: an argument whose bytes are not UTF-8 cannot."""
    return not any(unicodedata.category(char) == "Cs" for char in text)


def visible(text: Any) -> str:
    """Return ``text`` with control, bidi-override and unpaired surrogate characters spelt out."""

    def spell(char: str) -> str:
        if char not in _DISGUISE and unicodedata.category(char) not in ("Cc", "Cs"):
            return char
        code = ord(char)
        return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"

    return "".join(spell(char) for char in str(text or ""))


def visible_lines(text: str) -> str:
    """Return ``text`` as ``visible`` does, but its lines and tabs stay what they are."""
    return re.sub(r"[^\n\t]+", lambda run: visible(run[0]), text)


def prose(text: Any, limit: int | None = None) -> str:
    """Return ``text`` on one line, harmless to show, cut to ``limit`` characters with an ellipsis.

    Raises nothing: None reads as the empty text.
    """
    # Cut before spelling out as well: a narration of megabytes must cost no more than a long one.
    raw = str(text or "") if limit is None else str(text or "")[: 4 * limit]
    line = visible(re.sub(r"[ \t\r\n]+", " ", raw).strip())
    if limit is None or len(line) <= limit:
        return line
    return line[: limit - 1].rstrip() + "…"


def escape(text: Any, limit: int | None = None) -> str:
    """Return ``prose(text, limit)`` for HTML, in an element or in a quoted attribute."""
    return html.escape(prose(text, limit), quote=True)


def clock(seconds: Any) -> str:
    """Return a moment as ``mm:ss.s``, from one hour on as ``h:mm:ss.s``."""
    tenths = round(max(number(seconds), 0.0) * 10)
    minutes, rest = divmod(tenths, 600)
    shown = f"{rest // 10:02d}.{rest % 10}"
    if minutes < 60:
        return f"{minutes:02d}:{shown}"
    return f"{minutes // 60}:{minutes % 60:02d}:{shown}"


def length(seconds: Any) -> str:
    """Return how long a video is as ``m:ss`` or ``h:mm:ss``; unknown when None or zero."""
    whole = round(number(seconds))
    if number(seconds) <= 0:
        return UNKNOWN
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d}"
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def hours(seconds: Any) -> str:
    """Return video-hours with three digits that matter: ``0.0119``, ``2.51``, ``1,204``."""
    value = number(seconds) / 3600
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def effort(seconds: Any) -> str:
    """Return time spent: ``0.42 s``, ``12.3 s``, ``4 min 5 s``, ``3 h 12 min``."""
    value = number(seconds)
    if value < 59.95:
        return f"{value:.2f} s" if value < 1 else f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole // 60 % 60} min"


def count(value: Any) -> str:
    """Return a whole number with thousands separators; unknown when None."""
    return UNKNOWN if value is None else f"{round(number(value)):,}"


def short_count(value: Any) -> str:
    """Return a count in at most four digits: ``940``, ``12.4 k``, ``3.1 M``."""
    left = number(value)
    for unit in ("", " k", " M", " G"):
        if left < 999.5:
            return f"{left:.0f}{unit}" if not unit or left >= 99.95 else f"{left:.1f}{unit}"
        left /= 1000
    return f"{left:,.1f} T"


def size(n_bytes: Any) -> str:
    """Return a number of bytes in binary units: ``512 B``, ``2.6 MiB``."""
    if n_bytes is None:
        return UNKNOWN
    left = number(n_bytes)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if left < 1023.5 or unit == "TiB":
            break
        left /= 1024
    return f"{left:.0f} {unit}" if unit == "B" or left >= 99.95 else f"{left:.1f} {unit}"


def plural(value: int, noun: str) -> str:
    """Return ``1 video``, ``2 videos``."""
    return f"{value:,} {noun}" + ("" if value == 1 else "s")


def plain_error(error: Any) -> tuple[str, str]:
    """Split an error of a row, ``Kind: message``, into plain words and the exact detail.

    A kind without plain words of its own keeps its name in the detail; either part may be empty.
    """
    line = prose(error, 600)
    found = re.match(r"(?:[\w.]+\.)?([A-Za-z]\w*): (.*)$", line)
    if found and found[1] in _PLAIN:
        return _PLAIN[found[1]], found[2][:1].upper() + found[2][1:]
    return _PLAIN.get(line, ""), "" if line in _PLAIN else line


def shorten(text: str, width: int) -> str:
    """Return ``text`` in at most ``width`` terminal cells, cut in the middle.

    The end is kept longer than the start: names of a series differ there.
    """
    if cell_len(text) <= width:
        return text
    if width < 3:
        return text[:width]
    head, tail = "", ""
    for char in text:
        if cell_len(head + char) > (width - 1) // 3:
            break
        head += char
    for char in reversed(text):
        if cell_len(head + char + tail) > width - 1:
            break
        tail = char + tail
    return f"{head}…{tail}"


def names(uris: Sequence[str], width: int | None = None) -> list[str]:
    """Return one short name for each URI: its last part, with parents where needed to differ.

    Names are unique even after they are cut to ``width`` cells; a URI that stands there twice
    gets a number.
    """
    parts = [visible(uri).rstrip("/").split("/") for uri in uris]
    depth = [1] * len(parts)
    while True:
        shown = ["/".join(part[-deep:]) or "?" for part, deep in zip(parts, depth, strict=True)]
        where: dict[str, list[int]] = {}
        for index, name in enumerate(shown):
            where.setdefault(name, []).append(index)
        twins = [i for same in where.values() if len(same) > 1 for i in same]
        deeper = [index for index in twins if depth[index] < len(parts[index])]
        if not deeper:
            break
        for index in deeper:
            depth[index] += 1
    taken: set[str] = set()
    used: dict[str, int] = {}
    unique = []
    for name in shown:
        short = name if width is None else shorten(name, width)
        chosen, nth = short, used.get(short, 1)
        while chosen in taken:
            nth += 1
            mark = f" ({nth})"
            chosen = (name if width is None else shorten(name, max(width - len(mark), 1))) + mark
        used[short] = nth
        taken.add(chosen)
        unique.append(chosen)
    return unique
