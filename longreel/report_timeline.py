"""The timeline of one video as HTML: segments, damage, chapters, narrations and the filmstrip.

Every position is ``time / duration`` of the video in per cent, so all rows share one time axis.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from longreel import readable
from longreel.digest import Film, Narration, Row
from longreel.filmstrip import Thumbnail, spread
from longreel.readable import escape

_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 36000)
_LABELS = 6
_THUMB_WIDTH = 15.0


@dataclass(frozen=True)
class Shot:
    """A keyframe of the filmstrip; without ``picture`` only its place is kept."""

    time_s: float
    picture: Thumbnail | None
    stored_at: str


@dataclass(frozen=True)
class Mark:
    """Narrations ``first`` to ``first + members - 1``, too close together to be marked apart."""

    first: int
    members: int
    start_s: float
    end_s: float


def cluster(narrations: Sequence[Narration], duration_s: float, limit: int) -> list[Mark]:
    """Group narrations that fall into one of ``limit`` equal stretches of the video."""
    marks: list[Mark] = []
    last = -1
    for index, each in enumerate(narrations):
        place = int(min(max(each.time_s / duration_s, 0.0), 1.0) * limit)
        if place == last:
            mark = marks.pop()
            marks.append(Mark(mark.first, mark.members + 1, mark.start_s, each.time_s))
        else:
            marks.append(Mark(index, 1, each.time_s, each.time_s))
        last = place
    return marks


def timeline(
    film: Film,
    shots: Sequence[Shot],
    narrations: Sequence[Narration],
    key: str,
    max_marks: int,
    max_chapters: int,
) -> str:
    """Return the timeline; only the filmstrip when the video's duration is not known.

    ``key`` is the card's id: narration ``i`` has the row ``{key}n{i}``, to which its mark links.
    At most ``max_marks`` marks and as many gaps are drawn.
    """
    duration = film.duration_s
    if duration <= 0:
        return _strip(shots, [0.0] * len(shots), key)
    label = (
        f"Timeline, {readable.length(duration)} long, "
        f"{readable.plural(len(narrations), 'narration')}, "
        f"{readable.plural(len(shots), 'keyframe')}"
    )
    places = [_percent(shot.time_s, duration) for shot in shots]
    track = [
        *_cuts(film, duration, max_marks),
        *_gaps(film, duration, max_marks),
        *(f'<i class="key" style="left:{place:.3f}%"></i>' for place in places),
        *_marks(narrations, duration, key, max_marks),
    ]
    return (
        f'<div class="time" role="group" aria-label="{label}">{_axis(duration)}'
        f'{_chapters(film, duration, max_chapters)}<div class="track">{"".join(track)}</div>'
        f'{_strip(shots, places, key)}<div class="tip" hidden></div></div>'
    )


def _percent(time_s: float, duration_s: float) -> float:
    return min(max(time_s / duration_s, 0.0), 1.0) * 100


def _span(start_s: float, end_s: float, duration_s: float) -> str:
    left = _percent(start_s, duration_s)
    return f"left:{left:.3f}%;width:{_percent(end_s, duration_s) - left:.3f}%"


def _axis(duration: float) -> str:
    step = next((each for each in _STEPS if duration / each <= _LABELS), None)
    step = step or int(duration / _LABELS)
    ticks = [index * step for index in range(int(duration / step) + 1)]
    # The end is always said, so a tick whose label would run into it gives way.
    labels = [
        f'<span style="left:{_percent(tick, duration):.3f}%">{_tick(tick)}</span>'
        for tick in ticks
        if tick < duration * 0.92
    ]
    end = f'<span class="end" style="left:100%">{_tick(duration)}</span>'
    return f'<div class="axis" aria-hidden="true">{"".join(labels)}{end}</div>'


def _tick(seconds: float) -> str:
    return readable.length(seconds) if seconds else "0:00"


def _chapters(film: Film, duration: float, limit: int) -> str:
    found: list[Row] = list(film.row.get("chapters") or ())[:limit]
    bars = []
    for each in found:
        start, end = readable.number(each.get("start_s")), readable.number(each.get("end_s"))
        title = escape(each.get("title"), 120)
        bars.append(f'<span style="{_span(start, end, duration)}" title="{title}">{title}</span>')
    return f'<div class="chapters" aria-hidden="true">{"".join(bars)}</div>' if bars else ""


def _cuts(film: Film, duration: float, limit: int) -> list[str]:
    found = film.boundaries()
    # Lines closer than this would be one grey area that says nothing.
    if len(found) > limit:
        return []
    return [f'<i class="cut" style="left:{_percent(each, duration):.3f}%"></i>' for each in found]


def _gaps(film: Film, duration: float, limit: int) -> list[str]:
    bars = []
    for gap in film.gaps()[:limit]:
        what = "No results" if gap.whole else "Damage"
        title = f"{what} from {readable.clock(gap.start_s)} to {readable.clock(gap.end_s)}"
        bars.append(
            f'<i class="gap" role="img" style="{_span(gap.start_s, gap.end_s, duration)}" '
            f'title="{title}" aria-label="{title}"></i>'
        )
    return bars


def _marks(narrations: Sequence[Narration], duration: float, key: str, limit: int) -> Iterator[str]:
    found = cluster(narrations, duration, limit)
    most = max((mark.members for mark in found), default=1)
    for mark in found:
        first = narrations[mark.first]
        label = f"{readable.clock(first.time_s)} {readable.prose(first.text, 90)}"
        style = _span(mark.start_s, mark.end_s, duration)
        if mark.members > 1:
            label += f" (and {mark.members - 1:,} more)"
        # Where narrations are dense their number is what the eye should get: taller marks.
        if most > 1:
            style += f";--h:{mark.members / most:.2f}"
        yield (
            f'<a class="mark" href="#{key}n{mark.first}" data-n="{mark.members}" '
            f'style="{style}" aria-label="{escape(label)}"></a>'
        )


def _strip(shots: Sequence[Shot], centres: Sequence[float], key: str) -> str:
    if not shots:
        return ""
    width = min(100 / len(shots), _THUMB_WIDTH)
    lefts = spread(centres, width)
    edge, items, links = 0.0, [], []
    for index, (shot, centre, left) in enumerate(zip(shots, centres, lefts, strict=True)):
        middle = left + width / 2
        links.append(
            f'<path d="M{centre:.3f} 0C{centre:.3f} 60 {middle:.3f} 40 {middle:.3f} 100"/>'
        )
        # Margins, not absolute places: the strip then has the height of its pictures.
        style = f"margin-left:{max(left - edge, 0):.3f}%;width:{width:.3f}%"
        items.append(
            f'<li style="{style}" data-left="{centre:.3f}"><figure>'
            f"{_picture(shot, f'{key}k{index}')}"
            f"<figcaption>{readable.clock(shot.time_s)}</figcaption></figure></li>"
        )
        edge = left + width
    svg = (
        '<svg class="links" viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true">'
        f"{''.join(links)}</svg>"
    )
    return f'{svg}<ol class="strip" aria-label="Keyframes">{"".join(items)}</ol>'


def _picture(shot: Shot, key: str) -> str:
    if shot.picture:
        return (
            f'<img id="{key}" src="{shot.picture.data_uri}" width="{shot.picture.width}" '
            f'height="{shot.picture.height}" alt="Keyframe at {readable.clock(shot.time_s)}" '
            'loading="lazy" decoding="async">'
        )
    if shot.stored_at:
        where = escape(shot.stored_at, 300)
        return f'<span class="blank" title="{where}">picture stored elsewhere</span>'
    return '<span class="blank">no picture</span>'
