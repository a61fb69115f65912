"""Live sessions over HTTP: how many, what the way costs, who moves, and what a death loses.

``python -m bench.serve --json``; one cluster on this machine, whose cores the proxy, the gateway,
all replicas and the clients share: figures count beside each other, not alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bench import serve_chaos, serve_moves, serve_overhead, serve_rivals
from bench.bars import LAG_LIMIT_S
from bench.harness import ratio, run
from bench.serve_haproxy import behind_haproxy
from bench.serve_knee import knee
from bench.serve_load import FPS, SHARE, Spec
from mod.checkpoint import TINY
from pipelines.cluster import connected
from serve.app import ReplicaPlan, deploy
from serve.handles import replica_handle

REPLICAS = 2
#: Sessions of the first probe of each side, near to where its knee is on two cores.
FIRST = {"ours": 32, "resend": 4, "hashed": 32}
#: In the short form, which has no time for a third side, nor to look between two loads.
FIRST_QUICK = {"ours": 16, "resend": 2}


def knees(url: str, quick: bool) -> tuple[list[float], dict[str, list[list[dict[str, Any]]]]]:
    """Ours over re-sending, a value a round; and of each side and round all probes."""
    # What re-sending costs grows with a session's length: it is the same in both forms.
    lasts_s, window_s = 45.0, 30.0
    rounds, probes = (1, 0) if quick else (2, 3)
    first = FIRST_QUICK if quick else FIRST
    found: dict[str, list[list[dict[str, Any]]]] = {}
    ratios = []
    for number in range(rounds):
        at: dict[str, int | None] = {}
        for side, sessions in first.items():
            tried: list[dict[str, Any]] = []

            load = Spec(side, url, sessions, lasts_s, window_s, seed=number)

            def passes(n: int, load: Spec = load, tried: list[dict[str, Any]] = tried) -> bool:
                tried.append(_probe(replace(load, sessions=n)))
                return bool(tried[-1]["passed"])

            at[side] = knee(passes, sessions, probes)
            found.setdefault(side, []).append(tried)
        ours, resend = at["ours"], at["resend"]
        if ours is not None and resend:
            ratios.append(ours / resend)
    return ratios, found


def _probe(spec: Spec) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.serve_load", json.dumps(asdict(spec))]
    most_s = 10 * (spec.lasts_s + spec.window_s)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=most_s)
    if done.returncode:
        raise RuntimeError(f"the load ended with {done.returncode}: {done.stderr[-500:]}")
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(
        f"{spec.side}, {spec.sessions:g} sessions: p50 {told['p50_s']:.3f} s, "
        f"p99 {told['p99_s']:.3f} s{' (stopped)' if told['stopped_early'] else ''}",
        flush=True,
    )
    return told


def measure(quick: bool) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """All of it on one cluster; each part ends what it opened."""
    frames, sessions, streams = (40, 20, 4) if quick else (200, 100, 16)
    length = 30 if quick else 60
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    # Ray's processes are nice by default, and the clients' here would go before them.
    os.environ.setdefault("RAY_worker_niceness", "0")
    with tempfile.TemporaryDirectory(prefix="longreel-") as folder, connected("local"):
        state = str(Path(folder) / "state")

        def scale(replicas: int) -> None:
            plan = ReplicaPlan(TINY, state=state, min_replicas=replicas, max_replicas=replicas)
            deploy(plan, http=("127.0.0.1", port))

        scale(REPLICAS)
        serve_rivals.run_noop()
        with behind_haproxy(Path(folder) / "haproxy-state", noop=True) as haproxy:
            overhead = asyncio.run(
                serve_overhead.measure(url, haproxy, replica_handle(), Path(folder) / "log", frames)
            )
        print(f"overhead: {overhead}", flush=True)
        chaos = asyncio.run(serve_chaos.chaos(url, state, streams, length))
        print(f"chaos: {chaos}", flush=True)
        serve_rivals.run_resend(REPLICAS)
        serve_rivals.run_hashed(REPLICAS)
        ratios, probes = knees(url, quick)
        moves = {
            "ours": asyncio.run(
                serve_moves.moved(url, sessions, lambda: scale(REPLICAS + 1), hashed=False)
            ),
            "consistent_hash": asyncio.run(
                serve_moves.moved(
                    url, sessions, lambda: serve_rivals.run_hashed(REPLICAS + 1), hashed=True
                )
            ),
        }
    found = {
        "overhead_over_noop": overhead.pop("ratio"),
        "haproxy_overhead_over_noop": overhead.pop("haproxy_ratio"),
        "moved_on_scale_up": ratio([moves["ours"]["moved"]]),
        "moved_on_scale_up_consistent_hash": ratio([moves["consistent_hash"]["moved"]]),
        "chaos_lost_items": ratio([chaos["lost_items"]]),
        "chaos_transcript_mismatches": ratio([chaos["mismatches"]]),
    }
    skipped = {}
    if ratios:
        found = {"knee_over_resend": ratio(ratios), **found}
    else:
        skipped["knee_over_resend"] = "of one side all loads passed, or none"
    if quick:
        skipped["knee_over_hashed"] = "in the full form alone"
    settings = {
        "model": TINY,
        "replicas": REPLICAS,
        "fps": FPS,
        "lag_limit_s": LAG_LIMIT_S,
        "late_share": SHARE,
        "session_s": probes["ours"][0][0]["lasts_s"],
        "window_s": probes["ours"][0][0]["window_s"],
        "pictures": "PNG of 96x96; a still scene for load, the moving world for chaos",
        "overhead_frames": frames,
        "moved_sessions": sessions,
        "chaos": {"sessions": streams, "frames": length, "kills": serve_chaos.KILLS},
    }
    figures = {
        "knees": probes,
        "overhead": overhead,
        "moved": moves,
        "chaos": chaos,
        "skipped": skipped,
    }
    return settings, found, figures


if __name__ == "__main__":
    run("serve", measure)
