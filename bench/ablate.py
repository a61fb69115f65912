"""One knob at a time around the defaults, with what it trades: ``python -m bench.ablate --json``.

Time and cache are measured on the geometry of ``bench.engine``, with weights that never speak;
words, answers and their quality on the bundled model; the session log on a folder and on one that
answers as slowly as an object store.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from actors.statestore import StateStore
from bench.ablate_commit import FPS, HEAD_S, PUT_S, SESSIONS, Distant, commits
from bench.ablate_engine import LIVE_SESSIONS, Wide, chunks
from bench.ablate_knob import Knob
from bench.ablate_memory import POLICIES, memories
from bench.ablate_quality import Quality, bundled, film, trained_elsewhere
from bench.harness import ratio, run
from bench.model import HELD_OUT
from bench.models import LAYERS, WIDTH


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        rounds: of all values of a knob in turn.
        chunk_frames, silent_frames: of the streams cut into chunks.
        frames: of the silent stream behind other routers.
        live_frames: of each live session.
        parts, dialogues, film_frames: see ``bench.ablate_quality.Quality``.
        streams, stream_frames: that are remembered.
        commit_s: seconds of arrivals at the log.
    """

    rounds: int
    chunk_frames: int
    silent_frames: int
    frames: int
    live_frames: int
    parts: int
    dialogues: int
    film_frames: int
    streams: int
    stream_frames: int
    commit_s: float


QUICK = Effort(3, 32, 48, 24, 6, 2, 1, 12, 1, 80, 0.5)
FULL = Effort(5, 32, 96, 32, 10, 5, 2, 16, 2, 300, 1.0)


def turned(effort: Effort) -> dict[str, Knob]:
    """Every knob by name."""
    wide = Wide()
    quality = Quality(effort.parts, effort.dialogues, effort.film_frames)
    rounds = effort.rounds
    frames = film(HELD_OUT, effort.chunk_frames)
    knobs: dict[str, Callable[[], Knob]] = {
        "chunk": lambda: chunks(*bundled(), frames, rounds),
        "chunk_silent": lambda: wide.chunks(effort.silent_frames, rounds),
        "keep": lambda: wide.keeps(effort.frames, rounds),
        "router": lambda: wide.routers(effort.frames, rounds),
        "page": lambda: wide.pages(effort.live_frames, rounds),
        "keep_quality": quality.keeps,
        "router_quality": quality.routers,
        "decision": quality.decisions,
        "memory": lambda: memories(effort.streams, effort.stream_frames),
        "commit_folder": lambda: commits(StateStore, effort.commit_s, rounds),
        "commit_distant": lambda: commits(Distant, effort.commit_s, rounds),
    }
    found = {}
    for name, turn in knobs.items():
        started = time.monotonic()
        found[name] = turn()
        print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)
    return found


def ratios_of(found: dict[str, Knob]) -> dict[str, dict[str, float]]:
    """What a bar can be held against: other values over the default, the best one among them."""
    over: dict[str, dict[str, float]] = {}
    for knob, metric, called in (
        ("chunk", "ms_a_frame", "time"),
        ("chunk_silent", "ms_a_frame", "time"),
        ("page", "ms_a_frame", "time"),
        ("commit_folder", "p99_ms", "p99"),
        ("commit_distant", "p99_ms", "p99"),
    ):
        over[f"{knob}_best_over_default_{called}"] = found[knob].best_over_default(metric)
    for knob, value, name, metric, called in (
        ("chunk", "1", "chunk_1", "ms_a_frame", "time"),
        ("chunk_silent", "1", "chunk_silent_1", "ms_a_frame", "time"),
        ("keep", "1.0", "keep_1", "ms_a_frame", "time"),
        ("keep", "1.0", "keep_1", "kib_a_frame", "cache"),
        ("keep_quality", "1.0", "keep_1", "lm_ppl", "ppl"),
        ("keep_quality", "0.1", "keep_least", "lm_ppl", "ppl"),
        ("router", "none", "router_none", "ms_a_frame", "time"),
        ("router", "learned", "router_learned", "ms_a_frame", "time"),
        ("router", "random", "router_random", "ms_a_frame", "time"),
        ("router", "bounded, all", "placement_all", "ms_a_frame", "time"),
        ("router_quality", "random", "router_random", "lm_ppl", "ppl"),
        ("router", "bounded, decision free", "decision_free", "ms_a_frame", "time"),
        ("decision", "free at 0.2", "decision_free", "lm_ppl", "ppl"),
        ("memory", "full", "memory_full", "late_ms_a_frame", "late_time"),
        ("memory", "full", "memory_full", "held_mib", "held"),
        ("memory", "window 64", "window_64", "ms_a_frame", "time"),
        ("page", "16", "page_16", "ms_a_frame", "time"),
        ("page", "256", "page_256", "ms_a_frame", "time"),
        ("commit_folder", "alone", "commit_folder_alone", "p99_ms", "p99"),
        ("commit_folder", "20 ms", "commit_folder_20ms", "p50_ms", "p50"),
        ("commit_folder", "20 ms", "commit_folder_20ms", "writes_a_second", "writes"),
        ("commit_distant", "alone", "commit_distant_alone", "p99_ms", "p99"),
        ("commit_distant", "20 ms", "commit_distant_20ms", "p50_ms", "p50"),
        ("commit_distant", "20 ms", "commit_distant_20ms", "writes_a_second", "writes"),
    ):
        over[f"{name}_over_default_{called}"] = found[knob].over_default(value, metric)
    memory = found["memory"].found
    over["window_answers_as_full"] = ratio(memory["window 256"]["as_full"])
    over["retrieve_answers_as_full"] = ratio(memory["retrieve 8"]["as_full"])
    page = found["page"]
    over["page_default_pages_over_held"] = ratio(page.found[page.default]["pages_over_held"])
    over["decision_free_agreement"] = ratio(found["decision"].found["free at 0.2"]["agreement"])
    return over


def measure(quick: bool) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Every knob; the model's on one thread."""
    torch.set_num_threads(1)
    effort = QUICK if quick else FULL
    found = turned(effort)
    settings = {
        **asdict(effort),
        "clock": "processor time of one thread; of the log the wall's",
        "wide": {"width": WIDTH, "layers": LAYERS, "threads": 1},
        "bundled": "trained with the bounded router at keep ratio 0.2, the decision token kept",
        "live_sessions": LIVE_SESSIONS,
        "memory": {name: asdict(policy) for name, policy in POLICIES.items()},
        "commit": {"sessions": SESSIONS, "fps": FPS, "put_s": PUT_S, "head_s": HEAD_S},
    }
    skipped = {}
    trained = trained_elsewhere()
    if trained is None:
        skipped["trained"] = "python -m bench.model --json has left no result"
    figures = {
        **{name: knob.shown() for name, knob in found.items()},
        "trained": trained,
        "skipped": skipped,
    }
    return settings, ratios_of(found), figures


if __name__ == "__main__":
    run("ablate", measure)
