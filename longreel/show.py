"""The picture of a finished job in the terminal: what ``longreel show`` prints.

Everything that comes from rows goes into ``Text`` objects and never through rich's markup, so a
file called ``[bold].mp4`` shows as itself.
"""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from longreel import readable
from longreel.digest import Figures, Film, Gap, Row, films, total
from longreel.schemas import FAILED, OK, PARTIAL

_COLOUR = {OK: "green", PARTIAL: "yellow", FAILED: "red"}
_MARK = {OK: "●", PARTIAL: "◐", FAILED: "○"}
_SUMMARY_CHARS = 600
_NARRATION_CHARS = 240
_GAPS = 3


def render_table(videos: list[Row], segments: list[Row], *, narrations: int = 5) -> RenderableType:
    """Return the job as something a rich console prints: each video, then the totals.

    ``videos`` and ``segments`` are rows of the schemas ``VIDEOS`` and ``SEGMENTS`` as dicts; of
    each video the first ``narrations`` narrations are shown. It fits the console it is printed
    on, from 60 columns up, and the status is always there as a word, not only as a colour.
    """
    return _Picture(videos, segments, max(narrations, 0))


class _Picture:
    # Names are cut to the width of the console, which is known only when it is printed.
    def __init__(self, videos: list[Row], segments: list[Row], narrations: int) -> None:
        self._films, self._orphans = films(videos, segments)
        self._narrations = narrations

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        room = max(options.max_width - 40, 16)
        names = readable.names([str(film.row.get("uri") or "") for film in self._films], room)
        for film, name in zip(self._films, names, strict=True):
            yield _heading(film, name)
            for line in _body(film, self._narrations):
                yield Padding(line, (0, 0, 0, 2))
            yield Text()
        yield Rule(style="dim")
        yield _totals(total(self._films))
        if self._orphans:
            yield Text(
                f"{readable.plural(self._orphans, 'segment row')} of videos without a row yet: "
                "the job has not finished.",
                style="yellow",
            )


def _heading(film: Film, name: str) -> Table:
    colour = _COLOUR[film.status]
    grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
    grid.add_column(ratio=1, no_wrap=True)
    for side in ("right", "right", "left"):
        grid.add_column(justify=side, no_wrap=True)
    frames = film.row.get("n_frames")
    grid.add_row(
        Text.assemble((f"{_MARK[film.status]} ", colour), (name, "bold")),
        Text(readable.clock(film.duration_s) if film.duration_s else readable.UNKNOWN),
        Text(readable.plural(round(readable.number(frames)), "frame")),
        Text(f"{film.status:<7}", style=colour),
    )
    return grid


def _body(film: Film, narrations: int) -> Iterator[RenderableType]:
    if film.status != OK or film.row.get("error"):
        yield _error(film)
        yield from _gaps(film.gaps())
    summary = readable.prose(film.row.get("summary"), _SUMMARY_CHARS)
    if summary:
        yield Text(summary)
    found = film.narrations()
    shown = found[:narrations]
    if not shown:
        return
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(overflow="fold")
    for each in shown:
        grid.add_row(
            Text(readable.clock(each.time_s), style="cyan"),
            Text(readable.prose(each.text, _NARRATION_CHARS) or readable.UNKNOWN),
        )
    if len(found) > len(shown):
        more = readable.plural(len(found) - len(shown), "more narration")
        grid.add_row(Text(), Text(f"… {more}", style="dim"))
    yield grid


def _error(film: Film) -> Text:
    plain, detail = readable.plain_error(film.row.get("error"))
    if not plain and not detail:
        detail = "No reason was recorded."
    return Text.assemble(
        (
            " ".join(filter(None, [plain, detail])),
            _COLOUR[film.status if film.status != OK else PARTIAL],
        ),
        overflow="fold",
    )


def _gaps(gaps: list[Gap]) -> Iterator[Text]:
    for gap in gaps[:_GAPS]:
        span = f"{readable.clock(gap.start_s)} to {readable.clock(gap.end_s)}"
        yield Text(f"{'without results' if gap.whole else 'damaged stretch'}: {span}", style="dim")
    if len(gaps) > _GAPS:
        yield Text(f"… {readable.plural(len(gaps) - _GAPS, 'more range')}", style="dim")


def _totals(figures: Figures) -> RenderableType:
    if not figures.videos:
        return Text("No videos.")
    status = Text(f"{figures.videos:,}")
    for word, value in (
        (OK, figures.ok),
        (PARTIAL, figures.partial),
        (FAILED, figures.failed),
    ):
        if value:
            status.append(", " if ":" in status.plain else ": ")
            status.append(f"{value:,} {word}", style=_COLOUR[word])
    pairs: list[tuple[str, Text]] = [
        ("videos", status),
        ("video-hours", Text(readable.hours(figures.duration_s))),
        ("frames", Text(readable.count(figures.frames))),
        ("narrations", Text(readable.count(figures.narrations))),
        ("decode", Text(readable.effort(figures.decode_s))),
        ("model", Text(readable.effort(figures.model_s))),
        ("vision tokens", Text(readable.count(figures.vision_tokens))),
        ("KV bytes", Text(readable.size(figures.kv_bytes))),
    ]
    grid = Table.grid(padding=(0, 3, 0, 0))
    for style in ("dim", "", "dim", ""):
        grid.add_column(style=style)
    for (left, first), (right, second) in zip(pairs[::2], pairs[1::2], strict=True):
        grid.add_row(left, first, right, second)
    return grid
