"""The picture of ``bench.ablate``: a panel for each question that a knob answers.

What the product has is red. Whiskers reach from least to most over the rounds, of quality over
the parts of the held-out streams.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator, NullLocator

OURS, OTHERS = "#c0392b", "#7d9fc4"
PERPLEXITY = "perplexity of words (less is better)"
_WAIT = "wait for more (alone: one record a write)"
_COLORS = ("#34618f", "#d08a2e", "#5a9367")
#: A knob as ``bench.ablate_knob.Knob.shown`` gives it.
Shown = Mapping[str, Any]


def panels(figures: Mapping[str, Any], machine: str) -> plt.Figure:
    """All panels; ``machine`` says where they were measured."""
    picture, rows = plt.subplots(5, 3, figsize=(15, 20), layout="constrained")
    _chunks(rows[0], figures)
    _keeps(rows[1], figures)
    _routers(rows[2], figures)
    _memories(rows[3], figures["memory"])
    _commits(rows[4], figures)
    picture.suptitle(
        "One knob at a time, the default in red; whiskers from least to most, over rounds or, of "
        f"perplexity, over parts of the held-out streams; {machine}",
        size=11,
    )
    return picture


def _chunks(axes: Sequence[Any], figures: Mapping[str, Any]) -> None:
    speaking, silent = figures["chunk"], figures["chunk_silent"]
    both = [(speaking, "bundled model, speaks"), (silent, "wider model, silent")]
    x = "frames decided at once, at most"
    _lines(axes[0], [(knob, "ms_a_frame", label) for knob, label in both])
    _named(axes[0], "Chunk: time of a frame", x, "over the default's")
    _lines(axes[1], [(speaking, "in_vain", "bundled model")], over=False)
    _named(axes[1], "Chunk: what is rolled back", x, "share of the frames that ran")
    _lines(axes[2], [(knob, "longest_step_ms", label) for knob, label in both], over=False)
    _named(axes[2], "Chunk: what others wait for", x, "longest step (ms)")


def _keeps(axes: Sequence[Any], figures: Mapping[str, Any]) -> None:
    keep, page = figures["keep"], figures["page"]
    x = "share of vision tokens kept"
    costs = (("ms_a_frame", "time"), ("kib_a_frame", "cache"), ("gmacs_a_frame", "arithmetic"))
    _lines(axes[0], [(keep, metric, label) for metric, label in costs], log=False)
    _named(axes[0], "Keep ratio: cost of a frame", x, "over the default's")
    quality = figures["keep_quality"]
    _lines(axes[1], [(quality, "lm_ppl", "bundled model")], over=False, log=False, zero=False)
    _named(axes[1], "Keep ratio: quality of what was trained at 0.2", x, PERPLEXITY)
    _lines(axes[2], [(page, "ms_a_frame", "time over the default's")], zero=False)
    _lines(axes[2], [(page, "pages_over_held", "pages over what they hold")], over=False, first=1)
    _named(axes[2], "Page: live streams side by side", "tokens of a page", "")


def _routers(axes: Sequence[Any], figures: Mapping[str, Any]) -> None:
    _bars(axes[0], figures["router"], "ms_a_frame")
    _named(axes[0], "Router and its layers: time", "ms a frame, silent stream")
    _points(axes[1], figures["router_quality"], "lm_ppl")
    _named(axes[1], "Router put behind weights trained with bounded", PERPLEXITY)
    _points(axes[2], figures["decision"], "lm_ppl")
    _named(axes[2], "The deciding token: always kept, or free", PERPLEXITY)


def _memories(axes: Sequence[Any], memory: Shown) -> None:
    _bars(axes[0], memory, "held_mib")
    _named(axes[0], "Memory: what a stream holds", "MiB at its end")
    _bars(axes[1], memory, "late_ms_a_frame")
    _named(axes[1], "Memory: time late in the stream", "ms a frame of the last quarter")
    _shares(axes[2], memory, ("beginning", "counts", "recent"))
    _named(axes[2], "Memory: right answers, by what is asked about", "share of few answers")


def _commits(axes: Sequence[Any], figures: Mapping[str, Any]) -> None:
    stores = (("commit_folder", "a folder"), ("commit_distant", "a distant store"))
    for axis, (store, label) in zip(axes, stores, strict=False):
        for number, (metric, of) in enumerate((("p50_ms", "half"), ("p99_ms", "99 in 100"))):
            _stops(axis, figures[store], metric, f"{of} wait no longer", _COLORS[number])
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_minor_locator(NullLocator())
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        _named(axis, f"Group commit on {label}", _WAIT, "ms to an acknowledgement")
    for number, (store, label) in enumerate(stores):
        _stops(axes[2], figures[store], "writes_a_second", label, _COLORS[number])
    axes[2].set_ylim(0)
    _named(axes[2], "Group commit: what the store has to do", _WAIT, "writes a second")


def _named(axis: Any, title: str, x: str, y: str = "") -> None:
    axis.set_title(title, size=10)
    axis.set_xlabel(x)
    axis.set_ylabel(y)


def _spread(found: Sequence[Mapping[str, float]], scale: float = 1.0) -> tuple[Any, Any]:
    """Medians, and how far whiskers reach below and above them."""
    middles = [scale * one["median"] for one in found]
    reach = [
        [scale * (one["median"] - one["min"]) for one in found],
        [scale * (one["max"] - one["median"]) for one in found],
    ]
    return middles, reach


def _lines(
    axis: Any,
    drawn: Sequence[tuple[Shown, str, str]],
    *,
    over: bool = True,
    log: bool = True,
    zero: bool = True,
    first: int = 0,
) -> None:
    """Metrics over the numbers of a knob.

    Args:
        drawn: knob, metric and label of each line.
        over: over the default's median.
        log: numbers double from one to the next.
        zero: the axis begins at 0.
        first: color of the first line.
    """
    for number, (knob, metric, label) in enumerate(drawn):
        values = knob["values"]
        scale = 1.0 / values[knob["default"]][metric]["median"] if over else 1.0
        middles, reach = _spread([values[value][metric] for value in values], scale)
        places = [float(value) for value in values]
        color = _COLORS[first + number]
        axis.errorbar(places, middles, yerr=reach, fmt="o-", capsize=3, label=label, color=color)
        axis.axvline(float(knob["default"]), color=OURS, linewidth=1, zorder=0)
    if log:
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    if zero:
        axis.set_ylim(0)
    axis.legend(fontsize=8)


def _bars(axis: Any, knob: Shown, metric: str) -> None:
    """A metric that begins at 0, of each value."""
    values = knob["values"]
    middles, reach = _spread([values[value][metric] for value in values])
    colors = [OURS if value == knob["default"] else OTHERS for value in values]
    axis.barh(list(values), middles, xerr=reach, capsize=3, height=0.6, color=colors)
    _told(axis, middles, reach[1])


def _points(axis: Any, knob: Shown, metric: str) -> None:
    """A metric whose differences count, of each value."""
    values = knob["values"]
    middles, reach = _spread([values[value][metric] for value in values])
    for place, value in enumerate(values):
        axis.errorbar(
            [middles[place]],
            [value],
            xerr=[[side[place]] for side in reach],
            fmt="o",
            capsize=3,
            color=OURS if value == knob["default"] else OTHERS,
        )
    # What differs is in the last digits.
    _told(axis, middles, reach[1], digits=4)


def _told(axis: Any, middles: Sequence[float], above: Sequence[float], *, digits: int = 3) -> None:
    """Medians as numbers, first value on top."""
    for place, (middle, more) in enumerate(zip(middles, above, strict=True)):
        at = (middle + more, place)
        axis.annotate(
            f"{middle:#.{digits}g}", at, textcoords="offset points", xytext=(5, -3), size=8
        )
    axis.invert_yaxis()
    axis.margins(x=0.2)
    axis.locator_params(axis="x", nbins=6)


def _shares(axis: Any, knob: Shown, metrics: Sequence[str]) -> None:
    """Shares side by side; means, as the median of few answers is one of them."""
    values = knob["values"]
    height = 0.8 / len(metrics)
    for number, metric in enumerate(metrics):
        off = (number - (len(metrics) - 1) / 2) * height
        places = [place + off for place in range(len(values))]
        shares = [values[value][metric]["mean"] for value in values]
        axis.barh(places, shares, height=height, color=_COLORS[number], label=metric)
        for place, share in zip(places, shares, strict=True):
            if not share:
                axis.annotate("0", (0, place), xytext=(3, -2), textcoords="offset points", size=6)
    axis.set_yticks(range(len(values)), list(values))
    axis.get_yticklabels()[list(values).index(knob["default"])].set_color(OURS)
    axis.invert_yaxis()
    axis.set_xlim(0, 1.35)
    axis.set_xticks([0, 0.25, 0.5, 0.75, 1])
    axis.legend(fontsize=8, loc="center right")


def _stops(axis: Any, knob: Shown, metric: str, label: str, color: str) -> None:
    """A metric at values that are no numbers."""
    values = knob["values"]
    middles, reach = _spread([values[value][metric] for value in values])
    axis.errorbar(list(values), middles, yerr=reach, fmt="o-", capsize=3, label=label, color=color)
    axis.axvline(list(values).index(knob["default"]), color=OURS, linewidth=1, zorder=0)
    axis.legend(fontsize=8)
