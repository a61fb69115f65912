"""What follows from a result's figures and stands in none of them: by bench and name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import fmean, median
from typing import Any

from bench.bars import LAG_LIMIT_S
from bench.names import of_model
from infra.openmodels.published import PUBLISHED

#: A result as a bench prints it.
Result = Mapping[str, Any]
#: Numbers of the same thing, one a run; None where the result does not have what they need.
Derive = Callable[[Result], list[float] | None]


def _over(result: Result, above: str, below: str, factor: float = 1.0) -> list[float] | None:
    sides = result["figures"]["times_real_time"]
    if above not in sides or below not in sides:
        return None
    return [factor * median(sides[above]) / median(sides[below])]


def _live(name: str) -> Derive:
    """The most streams that were tried and kept up; 0 where all that were tried did not."""

    def most(result: Result) -> list[float] | None:
        tried = result["figures"].get("live", {}).get(name)
        if not tried:
            return None
        kept = [
            each["sessions"]
            for each in tried
            if "error" not in each and not each["failed"] and each["p99_s"] <= LAG_LIMIT_S
        ]
        return [max(kept, default=0)]

    return most


def _tried(name: str) -> Derive:
    def least(result: Result) -> list[float] | None:
        tried = result["figures"].get("live", {}).get(name)
        return [min(each["sessions"] for each in tried)] if tried else None

    return least


def _knee(side: str) -> Derive:
    """Of each round, the most sessions that a load had and stayed under the limit."""

    def knees(result: Result) -> list[float] | None:
        rounds = result["figures"]["knees"].get(side, [])
        found = [[probe["live"] for probe in probes if probe["passed"]] for probes in rounds]
        return [max(each, default=0.0) for each in found] or None

    return knees


def _frames_a_second(seconds: str, streams: str, frames: str) -> Derive:
    def rates(result: Result) -> list[float]:
        told, found = result["settings"], result["figures"]["seconds"][seconds]
        total = told.get(streams, 1) * told[frames]
        return [total / each for each in found]

    return rates


def _method_gap(name: str, metric: str) -> Derive:
    def gap(result: Result) -> list[float]:
        methods = result["figures"]["methods"]
        ours, full = (fmean(one[metric] for one in methods[each]) for each in (name, "full"))
        return [ours - full]

    return gap


def _router_saves(result: Result) -> list[float]:
    """Of what random routing loses in all layers, what the router's choice saves; one a metric."""
    ours, random = (
        result["figures"]["mean_losses"][f"{each} all 0.2"] for each in ("mod", "random")
    )
    return [1 - ours[metric] / random[metric] for metric in ours]


def _slowdown(result: Result) -> list[float]:
    passes = result["figures"]["passes"]
    pairs = zip(passes["1"], passes["2"], strict=True)
    return [two["decode_s"] / one["decode_s"] for one, two in pairs]


def _interleaved(result: Result) -> list[float]:
    dense = [each["lm_ppl"] for each in result["figures"]["dense"]]
    routers = result["figures"]["interleaved"].values()
    lost = [
        fmean(one["lm_ppl"] / whole - 1 for one, whole in zip(parts, dense, strict=True))
        for parts in routers
    ]
    return [max(lost)]


def _over_hashed(result: Result) -> list[float] | None:
    ours, hashed = _knee("ours")(result), _knee("hashed")(result)
    if not ours or not hashed or not all(hashed):
        return None
    return [mine / other for mine, other in zip(ours, hashed, strict=True)]


def _haproxy_overhead(result: Result) -> list[float] | None:
    """What HTTP, routing and the log add behind HAProxy, over an empty POST behind it too."""
    ms = result["figures"]["overhead"]["ms"]
    if "haproxy_noop" not in ms:
        return None
    return [(ms["haproxy_acknowledged"] - ms["direct_push"]) / ms["haproxy_noop"]]


_BULK, _LIVE = ("", "bulk_frames"), ("live_sessions", "live_frames")

DERIVED: dict[str, dict[str, Derive]] = {
    "decode": {
        "read_videos_bar_over_ffmpeg": lambda result: _over(result, "read_videos", "ffmpeg", 8.0),
        "read_videos_bar_over_references": lambda result: _over(
            result, "read_videos", "reference pictures", 8.0
        ),
        "daft_bar_over_references": lambda result: _over(result, "daft", "reference pictures", 3.0),
        "daft_bar_over_ffmpeg": lambda result: _over(result, "daft", "ffmpeg", 3.0),
        "daft_over_ffmpeg": lambda result: _over(result, "daft", "ffmpeg"),
    },
    "engine": {
        f"{side}_frames_per_s": _frames_a_second(f"{side}_s", *sizes)
        for side, sizes in {
            "mod_bulk": _BULK,
            "dense_bulk": _BULK,
            "plain_bulk": _BULK,
            "quiet_mod": _BULK,
            "quiet_dense": _BULK,
            "mod_live": _LIVE,
            "plain_live": _LIVE,
        }.items()
    },
    "model": {
        "mod_time_gap_s": _method_gap("mod 0.2", "time_diff_s"),
        "all_router_saves": _router_saves,
    },
    "scale": {"decode_slowdown_2": _slowdown},
    "serve": {
        **{f"knee_{side}": _knee(side) for side in ("ours", "resend", "hashed")},
        "knee_over_hashed": _over_hashed,
        "haproxy_overhead": _haproxy_overhead,
    },
    "weights": {"interleaved_most_lost": _interleaved},
    "large": {
        "live_mod": _live("mod"),
        "live_mod_tried": _tried("mod"),
        "live_window": _live("mod, window of 256 frames"),
        "live_window_tried": _tried("mod, window of 256 frames"),
        "live_dense": _live("dense"),
    },
    **{
        of_model("large", model): {f"live_{side}": _live(side) for side in ("mod", "dense")}
        for model in PUBLISHED
    },
}
