"""Pictures of the kept results: ``python -m bench.plots`` draws an SVG beside each JSON it knows.

Needs the ``bench`` extra (matplotlib).
"""

from __future__ import annotations

import io
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt

from bench.ablate_plot import panels
from bench.claims_model import ENGINE
from bench.decode import REFERENCES
from bench.harness import RESULTS

#: Metrics of the quality plot: name in the result, label, whether less is better.
QUALITY = (
    ("lm_ppl", "perplexity of words", True),
    ("time_diff_s", "time difference (s)", True),
    ("fluency", "fluency", False),
    ("lm_correctness", "correctness", False),
)


#: Of the bars of ``draw_decode``; peers have one color.
_OURS, _PEER, _LIMIT = "#c0392b", "#7d9fc4", "#c9c9c9"
_SIDE_COLORS = {"ours": _OURS, "ours long": _OURS, REFERENCES: _LIMIT}


def draw_model(result: dict[str, Any]) -> plt.Figure:
    """Quality of each method over its arithmetic, one panel a metric; bars reach from least to
    most over the seeds."""
    figures = result["figures"]
    picture, axes = plt.subplots(1, len(QUALITY), figsize=(15, 4), layout="constrained")
    colors = plt.get_cmap("tab20")
    for axis, (key, label, less) in zip(axes, QUALITY, strict=True):
        for number, (name, runs) in enumerate(figures["methods"].items()):
            values = [run[key] for run in runs]
            middle = sum(values) / len(values)
            reach = [[middle - min(values)], [max(values) - middle]]
            # Many methods cost the same: side by side they can be told apart.
            cost = figures["cost_over_full"][name] + 0.005 * (number - 5)
            axis.errorbar(
                [cost], [middle], yerr=reach, fmt="o", capsize=3, color=colors(number), label=name
            )
        axis.set_xlabel("decoder arithmetic over full")
        axis.set_title(f"{label} ({'less' if less else 'more'} is better)", size=10)
    picture.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=9)
    n = len(next(iter(figures["methods"].values())))
    picture.suptitle(
        f"Quality on the generated world after {result['settings']['quality']['steps']} steps, "
        f"{n} seed{'s' if n > 1 else ''}; {_machine(result)}",
        size=10,
    )
    return picture


def draw_weights(result: dict[str, Any]) -> plt.Figure:
    """Quality of each router over the keep ratio, on a model trained dense; bars reach from least
    to most over the held-out parts."""
    figures = result["figures"]
    picture, axes = plt.subplots(1, len(QUALITY), figsize=(15, 4), layout="constrained")
    for axis, (key, label, less) in zip(axes, QUALITY, strict=True):
        for router, by_keep in figures["deep"].items():
            keeps = [float(keep) for keep in by_keep]
            values = [[part[key] for part in parts] for parts in by_keep.values()]
            middles = [statistics.fmean(each) for each in values]
            reach = [
                [middle - min(each) for middle, each in zip(middles, values, strict=True)],
                [max(each) - middle for middle, each in zip(middles, values, strict=True)],
            ]
            mark = "s" if router == "trained" else "o-"
            axis.errorbar(keeps, middles, yerr=reach, fmt=mark, capsize=3, label=router)
        axis.axhline(
            statistics.fmean(part[key] for part in figures["dense"]), color="#888", linewidth=1
        )
        axis.set_xlabel("share of a frame's tokens kept")
        axis.set_title(f"{label} ({'less' if less else 'more'} is better)", size=10)
    axes[0].legend(fontsize=8)
    picture.suptitle(
        f"A dense model that skips tokens in layers {result['settings']['layers']} without "
        f"training; the line is all tokens; {_machine(result)}",
        size=10,
    )
    return picture


def draw_engine(result: dict[str, Any]) -> plt.Figure:
    """Each ratio of the engine bench with its spread, and the bar it is held against."""
    bars = {c.name: c.bar for c in ENGINE if c.bar is not None and c.name in result["ratios"]}
    picture, axis = plt.subplots(figsize=(8, 3.2), layout="constrained")
    for place, (key, bar) in enumerate(bars.items()):
        found = result["ratios"][key]
        reach = [[found["median"] - found["min"]], [found["max"] - found["median"]]]
        axis.barh(place, found["median"], xerr=reach, capsize=3, height=0.5, color="#7d9fc4")
        axis.plot([bar.limit, bar.limit], [place - 0.4, place + 0.4], color="#c0392b")
        axis.annotate(
            f"{found['median']:.2f}, {bar}",
            (max(found["max"], bar.limit), place),
            textcoords="offset points",
            xytext=(6, -3),
            size=8,
        )
    axis.set_yticks(range(len(bars)), list(bars))
    axis.invert_yaxis()
    axis.margins(x=0.25)
    axis.set_title(f"Engine, one thread; {_machine(result)}", size=10)
    return picture


def draw_decode(result: dict[str, Any]) -> plt.Figure:
    """How many times faster than real time each side is, medians and spread."""
    sides = result["figures"]["times_real_time"]
    names = sorted(sides, key=lambda side: -statistics.median(sides[side]))
    middles = [statistics.median(sides[name]) for name in names]
    reach = [
        [middle - min(sides[name]) for name, middle in zip(names, middles, strict=True)],
        [max(sides[name]) - middle for name, middle in zip(names, middles, strict=True)],
    ]
    colors = [_SIDE_COLORS.get(name, _PEER) for name in names]
    picture, axis = plt.subplots(figsize=(9, 3.4), layout="constrained")
    labels = [f"{name}, alone (limit)" if name == REFERENCES else name for name in names]
    axis.barh(labels, middles, xerr=reach, capsize=3, height=0.5, color=colors)
    for place, (name, middle) in enumerate(zip(names, middles, strict=True)):
        at = (max(sides[name]), place)
        axis.annotate(f"{middle:.1f}", at, textcoords="offset points", xytext=(6, -3), size=8)
    axis.invert_yaxis()
    axis.margins(x=0.1)
    axis.set_xlabel("seconds of video a second, higher is better")
    what = result["settings"]
    picture.suptitle(
        f"{what['files']} files, {what['seconds'] / 60:.0f} min of {what['codec']}, "
        f"{what['bits_per_s'] / 1e6:.1f} Mbit/s,\nto {what['fps']} frames a second of "
        f"{what['side']}x{what['side']}; {_machine(result)}",
        size=10,
    )
    return picture


def draw_scale(result: dict[str, Any]) -> plt.Figure:
    """Efficiency over nodes as it is and with all changes, and what each change gives."""
    figures = result["figures"]
    picture, (curve, steps) = plt.subplots(
        1, 2, figsize=(12, 4), layout="constrained", width_ratios=(3, 2)
    )
    for name, sizes in figures["simulated"].items():
        if len(sizes) == 1:
            continue
        nodes = [int(size) for size in sizes]
        found = [sizes[size]["efficiency"] for size in sizes]
        middles = [one["median"] for one in found]
        low, high = ([one[side] for one in found] for side in ("min", "max"))
        (line,) = curve.plot(nodes, middles, "o-", label=name)
        curve.fill_between(nodes, low, high, alpha=0.2, color=line.get_color())
        for x, y, size in zip(nodes, middles, sizes.values(), strict=True):
            at = (x, y)
            curve.annotate(
                size["bottleneck"], at, textcoords="offset points", xytext=(4, 5), size=8
            )
    curve.set_xscale("log")
    curve.set_ylim(0, 1.1)
    curve.set_xlabel("nodes (the busiest resource is named)")
    curve.set_ylabel("ideal time over simulated time")
    curve.legend(loc="lower left")
    names = list(figures["simulated"])
    at_1000 = [figures["simulated"][name]["1000"]["efficiency"] for name in names]
    middles = [one["median"] for one in at_1000]
    reach = [
        [one["median"] - one["min"] for one in at_1000],
        [one["max"] - one["median"] for one in at_1000],
    ]
    steps.barh(names, middles, xerr=reach, capsize=3, height=0.5, color="#7d9fc4")
    steps.invert_yaxis()
    steps.set_title("1000 nodes, each change on top of the one above", size=10)
    hours = f"{result['settings']['hours']:,.0f}".replace(",", " ")
    picture.suptitle(f"Simulated job over {hours} hours of video; {_machine(result)}", size=10)
    return picture


def draw_serve(result: dict[str, Any]) -> plt.Figure:
    """Lag over live sessions of each side, what a frame's way costs, and how long recoveries
    took."""
    figures, what = result["figures"], result["settings"]
    picture, (lags, cost, healed) = plt.subplots(1, 3, figsize=(14, 4), layout="constrained")
    for number, (side, rounds) in enumerate(figures["knees"].items()):
        probes = [p for probes in rounds for p in probes]
        for passed, mark in ((True, "o"), (False, "x")):
            some = [p for p in probes if p["passed"] == passed]
            lags.plot(
                [p["live"] for p in some],
                [p["p99_s"] for p in some],
                mark,
                color=f"C{number}",
                label=f"{side}, {'under' if passed else 'over'} the limit" if some else None,
            )
    lags.axhline(what["lag_limit_s"], color="#c0392b", linewidth=1)
    lags.set_yscale("log")
    lags.set_xlabel(f"live sessions at {what['fps']:g} frames a second")
    lags.set_ylabel("p99 lag of a frame (s)")
    lags.legend(fontsize=8)
    times = figures["overhead"]["ms"]
    cost.barh(list(times), list(times.values()), height=0.5, color="#7d9fc4")
    for place, value in enumerate(times.values()):
        at = (value, place)
        cost.annotate(f"{value:.1f}", at, textcoords="offset points", xytext=(4, -3), size=8)
    cost.invert_yaxis()
    cost.margins(x=0.15)
    cost.set_xlabel("one frame, medians (ms)")
    seconds = sorted(figures["chaos"]["recovery_s"])
    healed.step(
        [0.0, *seconds],
        [n / max(1, len(seconds)) for n in range(len(seconds) + 1)],
        where="post",
    )
    healed.set_ylim(0, 1.05)
    healed.set_xlabel("a replica's death to the next acknowledgement (s)")
    healed.set_ylabel("share of its sessions")
    picture.suptitle(f"Serving; {_machine(result)}", size=10)
    return picture


def draw_autoscale(result: dict[str, Any]) -> plt.Figure:
    """Replicas over time under both policies above, sessions that were late below."""
    traces = {name: each for name, each in result["figures"].items() if "shown" in each}
    picture, axes = plt.subplots(
        2, len(traces), figsize=(16, 5.5), layout="constrained", sharex="col"
    )
    for (name, trace), (above, below) in zip(traces.items(), axes.T, strict=True):
        sessions = trace["shown"]["ours"]["sessions"]
        hours = [n * trace["every_s"] / 3600 for n in range(len(sessions))]
        live = above.twinx()
        live.fill_between(hours, sessions, color="#ddd", label="live sessions")
        live.set_ylim(0)
        live.tick_params(colors="#999")
        above.set_zorder(live.get_zorder() + 1)
        above.patch.set_visible(False)
        for side, whose, color in (
            ("default", "Ray Serve's", "#7d9fc4"),
            ("ours", "ours", "#c0392b"),
        ):
            shown = trace["shown"][side]
            above.plot(hours, shown["replicas"], color=color, label=whose)
            below.plot(hours, shown["late"], color=color)
        ratios = [
            result["ratios"][f"{name}_{what}_over_default"]["median"]
            for what in ("violations", "replica_hours")
        ]
        above.set_title(
            f"{name}: violations x {ratios[0]:.2g}, replica-hours x {ratios[1]:.3g}", size=10
        )
        above.set_ylim(0)
        below.set_yscale("symlog", linthresh=1.0)
        below.set_ylim(0)
        below.set_xlabel("hours")
    axes[0][0].set_ylabel("replicas (grey: live sessions)")
    axes[1][0].set_ylabel("late sessions")
    axes[0][0].legend(fontsize=8, loc="lower left")
    picture.suptitle(
        "Simulated: ours beside Ray Serve's policy with the best target and delays for each trace, "
        f"commit {result['commit']}",
        size=10,
    )
    return picture


def draw_ablate(result: dict[str, Any]) -> plt.Figure:
    """Each knob with what it trades, one panel a question."""
    return panels(result["figures"], _machine(result))


def draw_profile(result: dict[str, Any]) -> plt.Figure:
    """Wall time of a job by its parts, and processor time by process and by stage."""
    figures = result["figures"]
    sides = [side for side in ("before", "after") if side in figures]
    picture, axes = plt.subplots(3, 1, figsize=(11, 2.2 + 1.8 * len(sides)), layout="constrained")
    for axis, (title, of) in zip(axes, PROFILED.items(), strict=True):
        names = list(dict.fromkeys(name for side in sides for name in of(figures[side])))
        colors = plt.get_cmap("tab20")
        starts = [0.0] * len(sides)
        for number, name in enumerate(names):
            widths = [of(figures[side]).get(name, 0.0) for side in sides]
            label = f"{name} {' → '.join(f'{width:.1f}' for width in widths)}"
            axis.barh(sides, widths, left=starts, color=colors(number % 20), label=label)
            starts = [start + width for start, width in zip(starts, widths, strict=True)]
        axis.invert_yaxis()
        axis.set_title(title, size=9, loc="left")
        axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5), ncols=2)
    what = result["settings"]
    picture.suptitle(
        f"{what['minutes']} min of {what['codec']} through the whole job, medians of "
        f"{what['runs']} runs; {_machine(result)}",
        size=10,
    )
    return picture


def _largest(stages: dict[str, dict[str, float]], most: int = 12) -> dict[str, float]:
    seconds = {name: stage["cpu_s"] for name, stage in stages.items()}
    return {name: seconds[name] for name in sorted(seconds, key=lambda name: -seconds[name])[:most]}


#: The bars of ``draw_profile``: title, and seconds by name from one side's figures.
PROFILED: dict[str, Callable[[dict[str, Any]], dict[str, float]]] = {
    "wall time (s)": lambda figures: figures["wall_s"],
    "processor time of each kind of process (s)": lambda figures: figures["cpu_s"],
    "processor time of the largest stages (s)": lambda figures: _largest(figures["stages"]),
}


DRAWN: dict[str, Callable[[dict[str, Any]], plt.Figure]] = {
    "model": draw_model,
    "weights": draw_weights,
    "engine": draw_engine,
    "decode": draw_decode,
    "scale": draw_scale,
    "serve": draw_serve,
    "autoscale": draw_autoscale,
    "ablate": draw_ablate,
    "profile": draw_profile,
}


def _machine(result: dict[str, Any]) -> str:
    machine = result["machine"]
    return f"{machine['processor']}, {machine['cores']} cores, commit {result['commit']}"


def drawn(path: Path) -> str | None:
    """The picture of a result file as SVG; None where it is of no bench that has one."""
    draw = DRAWN.get(path.stem)
    if draw is None:
        return None
    # The same input gives the same file.
    mpl.rcParams["svg.hashsalt"] = "longreel"
    picture = draw(json.loads(path.read_text()))
    written = io.StringIO()
    picture.savefig(written, format="svg", metadata={"Date": None})
    plt.close(picture)
    return written.getvalue()


def main(results: Path = RESULTS) -> None:
    """Draw all that is there."""
    for path in sorted(results.glob("*/*.json")):
        svg = drawn(path)
        if svg is not None:
            path.with_suffix(".svg").write_text(svg, encoding="utf-8")
            print(path.with_suffix(".svg"))


if __name__ == "__main__":
    main()
