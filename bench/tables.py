"""Tables of figures within pages that are written by hand, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from bench.kept import Kept, UnknownFigureError, figure

#: Methods as the model's card names them.
_METHODS = {
    "full": "full",
    "mod 0.1": "MoD, r = .1",
    "mod 0.2": "MoD, r = .2",
    "mod 0.3": "MoD, r = .3",
    "learned 0.2": "MoD, the paper's raw score, r = .2",
    "random 0.2": "random, r = .2",
    "uniform 0.2": "uniform, r = .2",
    "layer skip": "layer skip",
    "early exit": "early exit",
    "mod all 0.2": "MoD in all layers, r = .2",
    "random all 0.2": "random in all layers, r = .2",
}
_METRICS = ("lm_ppl", "time_diff_s", "fluency", "lm_correctness")
#: What the bundled model is measured by, and the figures of each row.
_TINY = {
    "cuts narrated at their own sample: precision, recall, F1": (
        "cut_precision",
        "cut_recall",
        "cut_f1",
    ),
    "brightness words right": ("level_accuracy",),
    "colour words right": ("colour_accuracy",),
    "things: statements that are true of their sample; things announced while in the picture": (
        "thing_precision",
        "thing_recall",
    ),
    "camera words right, direction included; the commonest one always": (
        "move_precision",
        "move_chance",
    ),
    "camera motions of 1.5 s or more that were named": ("move_recall",),
    "questions answered right": ("answers",),
}


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def _methods(kept: Sequence[Kept]) -> str:
    data = _result(kept, "model")["figures"]
    rows = [
        [
            shown,
            f"{data['cost_over_full'][name]:.2f}",
            *(f"{fmean(one[metric] for one in data['methods'][name]):.3f}" for metric in _METRICS),
        ]
        for name, shown in _METHODS.items()
    ]
    return markdown(["method", "arithmetic", *(f"`{metric}`" for metric in _METRICS)], rows)


def _tiny(kept: Sequence[Kept]) -> str:
    found = _result(kept, "model")["figures"]["tiny"]
    rows = [[what, ", ".join(f"{found[key]:.2f}" for key in keys)] for what, keys in _TINY.items()]
    return markdown(["", ""], rows)


def _autoscale(kept: Sequence[Kept]) -> str:
    rows = []
    for trace in ("steady", "wave", "flash", "loss"):
        late, hours = (
            figure(kept, "autoscale", f"ratios/{trace}_{what}_over_default")
            for what in ("violations", "replica_hours")
        )
        rows.append(
            [
                trace,
                f"{late.median:#.2g} ({late.least:#.2g} to {late.most:#.2g})",
                f"{hours.median:.3f} ({hours.least:.3f} to {hours.most:.3f})",
            ]
        )
    head = [
        "trace",
        "session-seconds that were late, ours over Serve's",
        "replica-hours, ours over Serve's",
    ]
    return markdown(head, rows)


def _result(kept: Sequence[Kept], bench: str) -> Mapping[str, Any]:
    for each in kept:
        if each.bench == bench:
            return each.data
    raise UnknownFigureError(f"there is no result of bench.{bench}")


TABLES: Mapping[str, Callable[[Sequence[Kept]], str]] = {
    "methods": _methods,
    "tiny": _tiny,
    "autoscale": _autoscale,
}
