"""How many live streams the engine keeps up with under a large model, whichever it is."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from bench.bars import LAG_LIMIT_S
from bench.large_engine import FPS, SPEAKS, WORDS, Effort, engine_of, wait_for
from mod.decoder import RoutedDecoder
from mod.engine.engine import Engine
from mod.engine.events import Failed, FrameSeen, TurnEnded
from mod.engine.policy import Policy
from mod.layout import Layout


@dataclass(frozen=True)
class Tried:
    """Live streams that are tried.

    Attributes:
        model: ``mod`` or ``dense``.
        counts: of streams, ever more.
        policy: what each remembers; None is all.
    """

    model: str
    counts: Sequence[int]
    policy: Policy | None = None


def quantile(values: Sequence[float], q: float) -> float:
    """The ``q``-quantile (0-1), NaN of nothing."""
    if not values:
        return float("nan")
    return sorted(values)[min(len(values) - 1, int(q * len(values)))]


def live(
    model: RoutedDecoder,
    layout: Layout,
    sessions: int,
    effort: Effort,
    pool: Tensor,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """Lag of streams at 2 fps that each remember ``effort.history`` frames, in pages of their own.

    Args:
        pool: frames that come again and again.
        options: with which the engine opens them.

    Returns:
        Quantiles of the seconds from a frame's arrival to its decision; a frame that has none at
        the end counts with its age.
    """
    engine = engine_of(model, layout, 0.9, effort)
    engine.open("s0", max_new_tokens=WORDS, **options)
    n = len(pool)
    engine.push("s0", pool.repeat(-(-effort.history // n), 1, 1, 1)[: effort.history])
    _drain(engine)
    # What was evicted comes back into pages that nobody shares.
    engine.evict("s0")
    names = [f"s{i}" for i in range(sessions)]
    for name in names[1:]:
        engine.fork("s0", name)
    for name in names:
        engine.bring_in(name)
    wait_for(model.device)
    waiting: dict[str, deque[float]] = {name: deque() for name in names}
    chance = random.Random(0)
    started = time.perf_counter()
    due = [started + i / sessions / FPS for i in range(sessions)]
    seen: list[tuple[float, float]] = []
    failed: list[str] = []
    spoken = steps = pushed = 0
    while (now := time.perf_counter()) < started + effort.warm_s + effort.live_s:
        for i, name in enumerate(names):
            if due[i] <= now:
                engine.push(name, pool[steps % n][None])
                waiting[name].append(due[i])
                due[i] += 1.0 / FPS
                pushed += 1
                if chance.random() < SPEAKS:
                    engine.ask(name, f"q{pushed}", "What is happening now?")
        if not engine.busy:
            time.sleep(max(0.0, min(due) - time.perf_counter()))
            continue
        steps += 1
        for event in engine.step():
            if isinstance(event, FrameSeen):
                at = waiting[event.session].popleft()
                seen.append((at, time.perf_counter() - at))
            elif isinstance(event, TurnEnded):
                spoken += 1
            elif isinstance(event, Failed):
                failed.append(event.error)
    ended = time.perf_counter()
    seen += [(at, ended - at) for times in waiting.values() for at in times]
    lags = [lag for at, lag in seen if at >= started + effort.warm_s]
    used = engine.memory.used_bytes
    return {
        "sessions": sessions,
        "p50_s": quantile(lags, 0.5),
        "p99_s": quantile(lags, 0.99),
        "frames": len(lags),
        "narrations_and_answers": spoken,
        "steps": steps,
        "cache_gib": used / 2**30,
        "failed": failed[:3],
    }


def most_live(
    model: RoutedDecoder,
    layout: Layout,
    counts: Sequence[int],
    effort: Effort,
    pool: Tensor,
    options: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """``live`` for ever more sessions, until the lag's p99 passes the limit or memory ends."""
    found: list[dict[str, Any]] = []
    for count in counts:
        try:
            found.append(live(model, layout, count, effort, pool, options))
        except Exception as failure:
            found.append({"sessions": count, "error": f"{type(failure).__name__}: {failure}"})
            break
        print(found[-1], flush=True)
        if found[-1]["p99_s"] > LAG_LIMIT_S:
            break
    return found


def _drain(engine: Engine) -> None:
    while engine.busy:
        engine.step()
