"""Skipping vision tokens with weights as they are: ``python -m bench.weights --json``.

A model that was trained dense skips tokens by routers that need no training; beside them the same
model trained on with a router of weights, decoder and all. Quality is teacher-forced, on streams
nobody trained on, over the share of tokens kept. The dense model is the one that all methods of
``bench.model`` go on from, and with ``LONGREEL_BENCH_PARTS`` is taken from there.

Where every other layer still sees all tokens hardly anything is lost, whatever is skipped; routers
are told apart by layers that are all routed, from one of them on.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import torch

from bench.harness import ratio, run
from bench.model import (
    FULL,
    HELD_OUT,
    QUICK,
    Effort,
    Quality,
    Weights,
    losses,
    method_config,
    parts_folder,
    train_base,
    train_method,
)
from bench.parity import parity
from infra.openmodels import reference
from mod.checkpoint import TINY, find_checkpoint
from mod.loading import load
from mod.metrics import TeacherForced, teacher_forced
from mod.modeling import VideoLLMMoD
from mod.world.dialogues import watch

ROUTERS = ("redundancy", "norm", "attention", "uniform", "random")
#: Of a frame's nine tokens 2, 3 and 4 run; one of them is the last, which decides.
KEEPS = (0.2, 0.35, 0.5)
#: The share at which routers are compared, and their layers.
KEEP, DEEP, SPARED = 0.2, "after-2", "interleaved"
#: Held-out streams are measured in so many parts: of each router on the same streams.
PARTS = 4
Measured = list[TeacherForced]


@cache
def _quality(effort: Effort) -> Quality:
    """What trainings need; minutes to make, and not needed where all is found."""
    Quality.begin(effort)
    return Quality.one


class Bench:
    """The dense model's weights, and what it is measured on.

    Args:
        parts: folder where the model and each measurement are left, and found again.
    """

    def __init__(self, effort: Effort, parts: Path) -> None:
        self._effort, self._parts = effort, parts
        self._tiny, self._layout = load(find_checkpoint(TINY))
        base = parts / "base.pt"
        if not base.exists():
            _quality(effort)
            train_base(base)
        self._weights: Weights = torch.load(base)
        held_out = [watch(HELD_OUT + i, 16) for i in range(effort.held_out)]
        self._held_out = [held_out[i::PARTS] for i in range(PARTS)]

    def untrained(self, router: str, layers: str = DEEP, keep: float = 1.0) -> Measured:
        """The dense model behind a router without weights."""
        fields = {"router": router, "mod_layers": layers, "keep_ratio": keep}

        def make() -> VideoLLMMoD:
            model = VideoLLMMoD(method_config(fields, self._tiny))
            model.load_state_dict(self._weights)
            return model.eval()

        return self._measured(f"untrained {router} {layers} {keep}", make)

    def trained(self) -> Measured:
        """The dense model after the effort's steps more with a router of weights, at ``KEEP``."""
        fields = {"router": "bounded", "mod_layers": DEEP, "keep_ratio": KEEP}

        def make() -> VideoLLMMoD:
            world = _quality(self._effort).world
            return train_method(
                fields, self._tiny, self._weights, world, self._effort.steps, seed=0
            )

        return self._measured(f"trained {DEEP} {KEEP}", make)

    def _measured(self, name: str, make: Callable[[], VideoLLMMoD]) -> Measured:
        path = self._parts / f"{name}.json"
        if not path.exists():
            model = make()
            found = [teacher_forced(model, self._layout, part) for part in self._held_out]
            path.write_text(json.dumps([asdict(one) for one in found]))
        return [TeacherForced(**one) for one in json.loads(path.read_text())]


def lost(found: Measured, dense: Measured) -> list[float]:
    """Relative loss of ``lm_ppl`` against the dense model, on each part."""
    return [losses(one, [whole])["lm_ppl"] for one, whole in zip(found, dense, strict=True)]


def over(found: Measured, other: Measured, dense: Measured) -> dict[str, float]:
    """What one loses over what another does, on each part; below 1 is better."""
    pairs = zip(lost(found, dense), lost(other, dense), strict=True)
    return ratio([ours / theirs for ours, theirs in pairs])


def measure(quick: bool) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Every router at every share; one thread."""
    effort = QUICK if quick else FULL
    torch.set_num_threads(1)
    with parts_folder(effort) as parts:
        bench = Bench(effort, parts)
        dense = bench.untrained("none")
        deep = {r: {k: bench.untrained(r, DEEP, k) for k in KEEPS} for r in ROUTERS}
        spared = {r: bench.untrained(r, SPARED, KEEP) for r in ROUTERS}
        trained = bench.trained()
    random = deep["random"][KEEP]
    ratios = {
        f"{router}_over_random": over(deep[router][KEEP], random, dense)
        for router in ROUTERS
        if router != "random"
    }
    ratios["trained_over_random"] = over(trained, random, dense)
    different = parity(2 if quick else 6) if reference.available() else None
    skipped = {}
    if different is None:
        skipped["parity_mismatches"] = "torchvision, which the reference needs, is not installed"
    else:
        ratios["parity_mismatches"] = ratio([sum(one["mismatches"] for one in different.values())])
    ratios["random_loss"] = ratio(lost(random, dense))
    ratios["random_interleaved_loss"] = ratio(lost(spared["random"], dense))
    settings = {
        "layers": DEEP,
        "keep_ratio": KEEP,
        "parts": PARTS,
        "quality": asdict(effort),
    }
    named: dict[str, dict[float, Measured]] = {**deep, "trained": {KEEP: trained}}
    figures = {
        "skipped": skipped,
        "parity": different,
        "dense": [asdict(one) for one in dense],
        "deep": {r: {str(k): _dicts(f) for k, f in by.items()} for r, by in named.items()},
        "interleaved": {router: _dicts(found) for router, found in spared.items()},
        "mean_ppl_loss": {
            router: {str(k): statistics.fmean(lost(f, dense)) for k, f in by.items()}
            for router, by in named.items()
        },
    }
    return settings, ratios, figures


def _dicts(found: Measured) -> list[dict[str, Any]]:
    return [asdict(one) for one in found]


if __name__ == "__main__":
    run("weights", measure)
