"""What ``bench/results`` says of one GPU and one core, each figure with where it stands."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench.bars import LAG_LIMIT_S
from bench.harness import RESULTS

_DECODED_ON, _SCALED_ON, _MODEL_ON = "amd-epyc-2c", "amd-epyc-2c", "nvidia-h200"


class NotMeasuredError(Exception):
    """The results do not have what an answer needs."""


Keys = tuple[str | int, ...]


@dataclass(frozen=True)
class Figure:
    """A measured number and where it stands.

    Attributes:
        file: below ``bench/results``.
        path: of the number in it, or of what the number is made of as ``made`` says.
    """

    value: float
    file: str
    path: Keys
    made: str = ""

    def __str__(self) -> str:
        words = [f"[{each}]" if isinstance(each, int) else f".{each}" for each in self.path]
        return f"{self.file} {''.join(words).removeprefix('.')}{self.made}"


@dataclass(frozen=True)
class Live:
    """The most streams at once that kept up on one GPU.

    Attributes:
        sessions, fps: how many, and frames a second of each.
        p99_s: lag of all but one frame in a hundred.
        cache_gib: what one of them holds.
        kind: of model and memory.
        history: frames that each had seen before.
        window_gib: what one holds that remembers a window of frames; None where none was measured.
    """

    sessions: Figure
    fps: Figure
    p99_s: Figure
    cache_gib: Figure
    kind: str
    history: Figure
    window_gib: Figure | None


@dataclass(frozen=True)
class Bulk:
    """What a GPU and a core get through.

    Attributes:
        quiet, speaking: frames a second where nothing is said, and where ``speaks`` of them are
            followed by words.
        decoded: seconds of 720p video that a core decodes in one, for two frames a second.
        model: whose figures these are, and on what.
        efficiency: by the number of nodes, the share of their time that a job uses (simulated).
    """

    quiet: Figure
    speaking: Figure
    speaks: Figure
    decoded: Figure
    model: str
    efficiency: Mapping[int, Figure]


def read_live(results: Path = RESULTS, machine: str = _MODEL_ON) -> Live:
    """From ``large.json`` of a machine.

    Raises:
        NotMeasuredError: there is none, or nothing in it kept up.
    """
    file, found = _load(results, machine, "large")
    tried = [
        (each["sessions"], name, number, each)
        for name, rows in found["figures"]["live"].items()
        for number, each in enumerate(rows)
        if "error" not in each and not each["failed"]
    ]
    kept = [each for each in tried if each[3]["p99_s"] <= LAG_LIMIT_S]
    if not kept:
        raise NotMeasuredError(f"in {file} no number of live streams kept within {LAG_LIMIT_S:g} s")

    def held(sessions: int, name: str, number: int, row: dict[str, Any]) -> Figure:
        at: Keys = ("figures", "live", name, number, "cache_gib")
        return Figure(row["cache_gib"] / sessions, file, at, " / sessions")

    live = found["settings"]["live"]
    best = max(kept, key=lambda each: each[0])
    sessions, name, number, row = best
    at: Keys = ("figures", "live", name, number)
    # Whether they kept up or not: what one holds is the same.
    windows = [held(*each) for each in tried if "window" in each[1]]
    return Live(
        sessions=Figure(sessions, file, (*at, "sessions")),
        fps=Figure(live["fps"], file, ("settings", "live", "fps")),
        p99_s=Figure(row["p99_s"], file, (*at, "p99_s")),
        cache_gib=held(*best),
        kind=name,
        history=Figure(live["history_frames"], file, ("settings", "live", "history_frames")),
        window_gib=max(windows, key=lambda each: each.value, default=None),
    )


def read_bulk(results: Path = RESULTS) -> Bulk:
    """From ``large.json``, ``decode.json`` and ``scale.json``.

    Raises:
        NotMeasuredError: one of them is not there.
    """
    file, large = _load(results, _MODEL_ON, "large")
    decode_file, decode = _load(results, _DECODED_ON, "decode")
    scale_file, scale = _load(results, _SCALED_ON, "scale")
    frames = large["figures"]["bulk"]["frames_per_s"]
    rates: Keys = ("figures", "bulk", "frames_per_s")
    times: Keys = ("figures", "times_real_time", "ours")
    decoded = median(decode["figures"]["times_real_time"]["ours"]) / decode["machine"]["cores"]
    simulated: Keys = ("figures", "simulated", "as it is")
    return Bulk(
        quiet=Figure(frames["mod_quiet"], file, (*rates, "mod_quiet")),
        speaking=Figure(frames["mod"], file, (*rates, "mod")),
        speaks=Figure(large["settings"]["speaks"], file, ("settings", "speaks")),
        decoded=Figure(decoded, decode_file, times, ", the median / machine.cores"),
        model=_model(large),
        efficiency={
            int(nodes): Figure(
                each["efficiency"]["median"],
                scale_file,
                (*simulated, nodes, "efficiency", "median"),
            )
            for nodes, each in scale["figures"]["simulated"]["as it is"].items()
        },
    )


def _model(large: Mapping[str, Any]) -> str:
    return f"{large['settings']['geometry']}; {large['machine']['gpu']}"


def _load(results: Path, machine: str, name: str) -> tuple[str, dict[str, Any]]:
    path = results / machine / f"{name}.json"
    if not path.is_file():
        raise NotMeasuredError(f"there is no {machine}/{name}.json in the results")
    found: dict[str, Any] = json.loads(path.read_text())
    return f"{machine}/{name}.json", found
