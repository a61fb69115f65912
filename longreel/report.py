"""The picture of a finished job as one HTML page: what ``longreel report`` writes.

The page needs nothing but itself: pictures are data URIs, style and script are inline and named
by hash in its Content-Security-Policy, so text from file names or narrations can run nothing and
load nothing. Without the script it reads the same; the script adds hints on the timeline.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

from longreel import readable
from longreel.digest import Figures, Film, Row, films, total
from longreel.readable import TIMES, UNKNOWN, escape
from longreel.report_card import Limits, card
from longreel.schemas import FAILED, OK, PARTIAL

#: Bounds of the whole page. They hold for any job: cards beyond ``MAX_CARDS`` are left out (failed
#: ones last), and the cards share the rest evenly. Base64 adds a third to the pictures.
MAX_CARDS = 500
MAX_IMAGE_BYTES = 9_000_000
MAX_NARRATIONS = 12_000
MAX_MARKS = 16_000
MAX_CHAPTERS = 6_000
#: Most that one card may take, however few there are.
_CARD = Limits(thumbnails=8, image_bytes=96_000, narrations=2_000, marks=160, chapters=60)
_TYPICAL_THUMBNAIL = 7_000
_INDEX_FROM = 6
_MAX_VALUES = 4

_PROVENANCE = (
    ("Model", "model"),
    ("Revision", "model_revision"),
    ("Prompt hash", "prompt_hash"),
    ("Code version", "code_version"),
    ("Sampled at", "fps"),
    ("Keep ratio", "keep_ratio"),
    ("Job", "job_id"),
)


def render_report(videos: list[Row], segments: list[Row], *, title: str, generated_at: str) -> str:
    """Return the job as one self-contained HTML page.

    ``videos`` and ``segments`` are rows of the schemas ``VIDEOS`` and ``SEGMENTS`` as dicts;
    ``generated_at`` is shown as it is given. A keyframe's ``jpeg`` bytes become a thumbnail; one
    that has only a ``uri`` keeps its place and says where it lies, for the page loads nothing.

    The page is bounded whatever the job: at most ``MAX_CARDS`` videos, ``MAX_IMAGE_BYTES`` of
    pictures and ``MAX_NARRATIONS`` narrations of 600 characters, shared evenly by the cards; what
    was left out is said where it is missing. One video of ten hours with 2,000 narrations takes
    half a megabyte, 200 videos take under 15, and no job more than about 40, even when every text
    is as long as it may be (characters that HTML must spell out, such as ``&``, count up to six).
    """
    found, orphans = films(videos, segments)
    shown = _worth_a_card(found)
    named = readable.names([str(film.row.get("uri") or "") for film in found])
    limits = _limits(len(shown))
    cards = "".join(card(found[i], named[i], f"v{i}", limits) for i in shown)
    style, script = _asset("report.css"), _asset("report.js")
    figures = total(found)
    return "".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_policy(style, script)}">',
            '<meta name="viewport" content="width=device-width,initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            '<meta name="referrer" content="no-referrer">',
            f"<title>{escape(title, 300)}</title><style>{style}</style></head><body>",
            '<header class="top"><p class="brand">Longreel</p>',
            f'<h1 dir="auto">{escape(title, 300)}</h1>',
            f'<p class="when">{escape(generated_at, 100)}</p></header><main>',
            _figures(figures),
            _provenance(found),
            _notes(len(found) - len(shown), orphans),
            _filter(figures),
            _index(found, named, shown),
            cards or '<p class="empty">No videos: nothing matched the sources of this job.</p>',
            f"</main><script>{script}</script></body></html>\n",
        ]
    )


def _asset(name: str) -> str:
    return resources.files("longreel").joinpath(name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    def named(text: str) -> str:
        digest = hashlib.sha256(text.encode()).digest()
        return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"

    # Positions on the timelines are style attributes, which no hash can name.
    return (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"script-src {named(script)}; style-src 'unsafe-inline'; "
        f"style-src-elem {named(style)}; style-src-attr 'unsafe-inline'"
    )


def _worth_a_card(found: list[Film]) -> list[int]:
    # In a job too large for the page, those that need a look are the ones to keep.
    ranked = sorted(range(len(found)), key=lambda i: (found[i].status == OK, i))
    return sorted(ranked[:MAX_CARDS])


def _limits(cards: int) -> Limits:
    each = max(cards, 1)
    image_bytes = min(MAX_IMAGE_BYTES // each, _CARD.image_bytes)
    return Limits(
        thumbnails=max(min(image_bytes // _TYPICAL_THUMBNAIL, _CARD.thumbnails), 2),
        image_bytes=image_bytes,
        narrations=min(MAX_NARRATIONS // each, _CARD.narrations),
        marks=min(MAX_MARKS // each, _CARD.marks),
        chapters=min(MAX_CHAPTERS // each, _CARD.chapters),
    )


def _figures(figures: Figures) -> str:
    shares = [
        (word, value)
        for word, value in ((OK, figures.ok), (PARTIAL, figures.partial), (FAILED, figures.failed))
        if value
    ]
    bar = "".join(f'<i class="{word}" style="flex-grow:{value}"></i>' for word, value in shares)
    said = ", ".join(f"{value:,} {word}" for word, value in shares)
    work = figures.decode_s + figures.model_s
    tiles = [
        ("Videos", f"{figures.videos:,}", said),
        ("Length", readable.length(figures.duration_s), _hours(figures)),
        ("Narrations", f"{figures.narrations:,}", _per_minute(figures)),
        ("Frames seen", readable.short_count(figures.frames), _rates(figures)),
        (
            "Vision tokens",
            readable.short_count(figures.vision_tokens),
            f"{readable.short_count(figures.processed_token_layers)} token-layers",
        ),
        ("KV cache", readable.size(figures.kv_bytes), "written in all"),
        (
            "Work",
            readable.effort(work),
            f"decode {readable.effort(figures.decode_s)}, model {readable.effort(figures.model_s)}",
        ),
        (
            "Speed",
            f"{figures.seen_s / work:,.1f}{TIMES}" if work > 0 else UNKNOWN,
            "real time, per worker" if work > 0 else "",
        ),
    ]
    items = "".join(
        f"<div><dt>{word}</dt><dd>{value}<small>{note}</small></dd></div>"
        for word, value, note in tiles
    )
    return (
        '<section class="figures" aria-label="Figures of the job">'
        f'<div class="bar" role="img" aria-label="{said or "no videos"}">{bar}</div>'
        f"<dl>{items}</dl></section>"
    )


def _hours(figures: Figures) -> str:
    return f"{readable.hours(figures.duration_s)} hours" if figures.duration_s >= 360 else ""


def _per_minute(figures: Figures) -> str:
    if figures.duration_s <= 0:
        return ""
    return f"{figures.narrations / figures.duration_s * 60:.3g} a minute"


def _rates(figures: Figures) -> str:
    # Per second of work, not of the wall: with many workers the job was faster by their number.
    return ", ".join(
        f"{word} {readable.short_count(figures.frames / seconds)}/s"
        for word, seconds in (("decode", figures.decode_s), ("model", figures.model_s))
        if seconds > 0 and figures.frames
    )


def _provenance(found: list[Film]) -> str:
    items = []
    for word, column in _PROVENANCE:
        values: dict[str, None] = {}
        for film in found:
            for row in (film.row, *film.segments):
                if row.get(column) is not None:
                    values.setdefault(_value(column, row[column]))
        said = [f"<code>{value}</code>" for value in list(values)[:_MAX_VALUES]]
        if len(values) > _MAX_VALUES:
            said.append(f"and {len(values) - _MAX_VALUES:,} more")
        items.append(f"<div><dt>{word}</dt><dd>{', '.join(said) or UNKNOWN}</dd></div>")
    return (
        '<section class="origin" aria-label="Where these results come from">'
        f"<dl>{''.join(items)}</dl></section>"
    )


def _value(column: str, value: object) -> str:
    if column == "fps":
        return f"{readable.number(value):.4g} fps"
    if column == "keep_ratio":
        return f"{readable.number(value):.4g}"
    return escape(value, 120)


def _notes(left_out: int, orphans: int) -> str:
    notes = []
    if left_out:
        notes.append(
            f"{readable.plural(left_out, 'video')} without a card here; the rows hold all of them, "
            "and the figures above count them."
        )
    if orphans:
        notes.append(
            f"{readable.plural(orphans, 'segment row')} of videos without a row yet: "
            "the job has not finished."
        )
    return "".join(f'<p class="note">{note}</p>' for note in notes)


def _filter(figures: Figures) -> str:
    choices = [(OK, figures.ok), (PARTIAL, figures.partial), (FAILED, figures.failed)]
    choices = [(word, value) for word, value in choices if value]
    if len(choices) < 2:
        return ""
    every = [("all", figures.videos), *choices]
    return (
        '<fieldset class="filter"><legend>Show</legend>'
        + "".join(
            f'<label><input type="radio" name="show" id="show-{word}"'
            f"{' checked' if word == 'all' else ''}>{word} <span>{value:,}</span></label>"
            for word, value in every
        )
        + "</fieldset>"
    )


def _index(found: list[Film], named: list[str], shown: list[int]) -> str:
    if len(shown) < _INDEX_FROM:
        return ""
    items = "".join(
        f'<li class="{found[i].status}"><a href="#v{i}"><bdi>{escape(named[i], 200)}</bdi></a>'
        f"<span>{readable.length(found[i].duration_s)}</span></li>"
        for i in shown
    )
    return (
        '<nav aria-label="Videos"><details class="list"><summary>Contents '
        f"<span>{len(shown):,}</span></summary><ol>{items}</ol></details></nav>"
    )
