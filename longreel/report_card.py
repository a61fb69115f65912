"""One video of the report as HTML: name, status, summary, timeline and the list of narrations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from longreel import readable
from longreel.digest import Film, Narration
from longreel.filmstrip import choose, thumbnail
from longreel.readable import TIMES, UNKNOWN, escape
from longreel.report_timeline import Shot, timeline
from longreel.schemas import OK

#: Narrations that are open from the start; the rest of a longer list is one tap away.
OPEN_NARRATIONS = 6
_OPEN_CHAPTERS = 4
_MAX_GAPS = 20
_TEXT_CHARS = 600
_SUMMARY_CHARS = 3000
_COST = ("vision_tokens", "processed_token_layers", "kv_bytes", "decode_s", "model_s")


@dataclass(frozen=True)
class Limits:
    """What one card may take of the page."""

    thumbnails: int
    image_bytes: int
    narrations: int
    marks: int
    chapters: int


def card(film: Film, name: str, key: str, limits: Limits) -> str:
    """Return the ``<article>`` of one video; ``key`` is its id and starts all ids within it."""
    row = film.row
    everything = film.narrations()
    narrations = _thinned(everything, limits.narrations)
    shots = _shots(film, limits)
    status = film.status
    parts = [
        f'<article class="card {status}" id="{key}" aria-labelledby="{key}t">',
        f'<header><div><h2 id="{key}t"><bdi>{escape(name, 400)}</bdi></h2>',
        f'<p class="where"><bdi>{escape(row.get("uri"), 1000)}</bdi></p></div>',
        f'<p class="pill {status}">{status}</p></header>',
        _facts(film),
        _error(film),
        _paragraph("summary", row.get("summary")),
        timeline(film, shots, narrations, key, limits.marks, limits.chapters),
        _chapters(film, limits.chapters),
        _narrations(narrations, len(everything), shots, key),
        _cost(film),
        "</article>",
    ]
    return "".join(parts)


def _thinned(found: list[Narration], limit: int) -> list[Narration]:
    if len(found) <= limit:
        return found
    # Evenly over the list, so that the end of a long video is seen as well as its start.
    return [found[index * len(found) // limit] for index in range(limit)]


def _shots(film: Film, limits: Limits) -> list[Shot]:
    left, shots = limits.image_bytes, []
    for each in choose(film.keyframes(), film.duration_s, limits.thumbnails):
        picture = thumbnail(each.get("jpeg"), min(12_000, left)) if left > 0 else None
        left -= len(picture.jpeg) if picture else 0
        shots.append(Shot(readable.number(each.get("time_s")), picture, str(each.get("uri") or "")))
    return shots


def _facts(film: Film) -> str:
    row = film.row
    facts = []
    if film.duration_s:
        facts.append(("Length", readable.length(film.duration_s)))
    if row.get("width") and row.get("height"):
        facts.append(("Picture", f"{row['width']}{TIMES}{row['height']}"))
    if row.get("codec"):
        facts.append(("Codec", escape(row["codec"], 40)))
    if row.get("source_fps"):
        facts.append(("Rate", f"{readable.number(row['source_fps']):.4g} fps"))
    if row.get("size_bytes") is not None:
        facts.append(("Size", readable.size(row["size_bytes"])))
    if row.get("n_frames"):
        facts.append(("Frames seen", readable.count(row["n_frames"])))
    segments = round(readable.number(row.get("n_segments")))
    failed = round(readable.number(row.get("n_failed_segments")))
    if segments:
        facts.append(("Segments", f"{segments:,}" + (f", {failed:,} failed" if failed else "")))
    items = "".join(f"<div><dt>{word}</dt><dd>{value}</dd></div>" for word, value in facts)
    return f'<dl class="facts">{items}</dl>'


def _paragraph(kind: str, text: object) -> str:
    shown = escape(text, _SUMMARY_CHARS)
    return f'<p class="{kind}" dir="auto">{shown}</p>' if shown else ""


def _error(film: Film) -> str:
    gaps = film.gaps()
    own = film.row.get("error")
    if film.status == OK and not own and not gaps:
        return ""
    plain, detail = readable.plain_error(own)
    if not plain and not detail and film.status != OK:
        plain = "No reason was recorded."
    rows = []
    for gap in gaps[:_MAX_GAPS]:
        why = "" if gap.why == own else " ".join(filter(None, readable.plain_error(gap.why)))
        what = "No results" if gap.whole else "Damage"
        rows.append(
            f"<li><span>{what} from <b>{readable.clock(gap.start_s)}</b> to "
            f"<b>{readable.clock(gap.end_s)}</b></span> <span>{escape(why, 300)}</span></li>"
        )
    if len(gaps) > _MAX_GAPS:
        rows.append(f"<li>{readable.plural(len(gaps) - _MAX_GAPS, 'more range')}</li>")
    head = f"<strong>{escape(plain)}</strong> " if plain else ""
    words = f"<p>{head}<span>{escape(detail)}</span></p>" if head or detail else ""
    ranges = f"<ul>{''.join(rows)}</ul>" if rows else ""
    return f'<div class="error" role="note" aria-label="What went wrong">{words}{ranges}</div>'


def _chapters(film: Film, limit: int) -> str:
    found = list(film.row.get("chapters") or ())
    rows = [
        f"<li><time>{readable.clock(each.get('start_s'))}</time>"
        f'<div dir="auto"><b>{escape(each.get("title"), 200)}</b> '
        f"{escape(each.get('summary'), _TEXT_CHARS)}</div></li>"
        for each in found[:limit]
    ]
    if not rows:
        return ""
    if len(found) > limit:
        rows.append(f"<li>{readable.plural(len(found) - limit, 'more chapter')}</li>")
    is_open = " open" if len(rows) <= _OPEN_CHAPTERS else ""
    return (
        f'<details class="list"{is_open}><summary>Chapters <span>{len(found):,}</span></summary>'
        f'<ol class="rows">{"".join(rows)}</ol></details>'
    )


def _narrations(
    narrations: Sequence[Narration], everything: int, shots: Sequence[Shot], key: str
) -> str:
    if not narrations:
        return ""
    first = _scenes(narrations[:OPEN_NARRATIONS], 0, shots, key)
    body = f'<ol class="scenes">{first}</ol>'
    rest = len(narrations) - OPEN_NARRATIONS
    if rest > 0:
        scenes = _scenes(narrations[OPEN_NARRATIONS:], OPEN_NARRATIONS, shots, key)
        body += (
            f'<details class="rest"><summary>{readable.plural(rest, "more narration")}</summary>'
            f'<ol class="scenes">{scenes}</ol></details>'
        )
    note = ""
    if everything > len(narrations):
        note = (
            f'<p class="note">{len(narrations):,} of {everything:,} narrations, evenly chosen; '
            "the rows hold all of them.</p>"
        )
    return f"<section><h3>Narrations <span>{everything:,}</span></h3>{body}{note}</section>"


def _scenes(narrations: Sequence[Narration], offset: int, shots: Sequence[Shot], key: str) -> str:
    """Rows beside the keyframe that precedes them; its picture is copied in by the script.

    The bytes are in the page once, in the filmstrip.
    """
    scenes: list[tuple[int, list[str]]] = []
    shot = 0
    for index, each in enumerate(narrations, offset):
        while shot + 1 < len(shots) and shots[shot + 1].time_s <= each.time_s:
            shot += 1
        if not scenes or scenes[-1][0] != shot:
            scenes.append((shot, []))
        text = escape(each.text, _TEXT_CHARS) or UNKNOWN
        scenes[-1][1].append(
            f'<li id="{key}n{index}"><time>{readable.clock(each.time_s)}</time>'
            f'<span dir="auto">{text}</span></li>'
        )
    return "".join(
        f'<li class="scene"><span class="thumb" data-of="{key}k{place}"></span>'
        f'<ol class="rows">{"".join(rows)}</ol></li>'
        for place, rows in scenes
    )


def _cost(film: Film) -> str:
    row = film.row
    if not any(row.get(column) for column in _COST):
        return ""
    facts = [
        f"{readable.short_count(row.get('vision_tokens'))} vision tokens",
        f"{readable.short_count(row.get('processed_token_layers'))} token-layers",
        f"{readable.size(row.get('kv_bytes') or 0)} of KV cache",
        f"decode {readable.effort(row.get('decode_s'))}",
        f"model {readable.effort(row.get('model_s'))}",
    ]
    return f"<footer>{''.join(f'<span>{fact}</span>' for fact in facts)}</footer>"
