"""What the router's knobs cost in quality: the bundled model on streams that nobody trained on.

Its weights were trained at keep ratio 0.2 with the ``bounded`` router and the decision token kept.
At other values they run as they are, so that another value is at a disadvantage; what training
with it gives is in ``model.json``, which is quoted.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.ablate_engine import KEEP, KEEPS
from bench.ablate_knob import Knob, Row, gathered
from bench.harness import RESULTS
from bench.model import HELD_OUT
from mod.checkpoint import TINY, find_checkpoint
from mod.engine.viewer import Viewer
from mod.layout import StreamLayout
from mod.loading import load
from mod.metrics import teacher_forced
from mod.modeling import VideoLLMMoD
from mod.routing import Routing
from mod.world.dialogues import watch
from mod.world.streams import World

#: ``learned`` would multiply by scores that were trained as ``bounded`` ones.
ROUTERS = ("bounded", "redundancy", "attention", "norm", "uniform", "random", "skip", "none")
DECISION_KEEPS = (0.1, 0.2, 0.5)


def film(seed: int, n_frames: int) -> Tensor:
    """The pictures of a generated stream, (n_frames, height, width, 3) uint8."""
    return torch.from_numpy(np.stack([s.frame for s in islice(World(seed), n_frames)]))


def bundled(
    keep: float | None = None, router: str | None = None, *, decision: bool = True
) -> tuple[VideoLLMMoD, StreamLayout]:
    """The bundled model with a knob turned.

    Args:
        decision: whether the token that the decision is read from always runs.
    """
    model, layout = load(find_checkpoint(TINY), keep, router)
    model.config.always_keep_decision = decision
    return model, layout


class Quality:
    """Held-out streams, and what the bundled model says to them as it is.

    Args:
        parts: in which they are measured, of each value on the same streams.
        dialogues: of 16 frames, in each part.
        n_frames: of the stream that each part is narrated on.
    """

    def __init__(self, parts: int, dialogues: int, n_frames: int) -> None:
        self._parts = [
            [watch(HELD_OUT + part * dialogues + i, 16) for i in range(dialogues)]
            for part in range(parts)
        ]
        self._films = [film(HELD_OUT + 1_000 + part, n_frames) for part in range(parts)]
        model, layout = bundled()
        self._said = [narrated(model, layout, frames) for frames in self._films]

    def rows(self, model: VideoLLMMoD, layout: StreamLayout) -> list[Row]:
        """Of each part the metrics of teacher forcing; and the model left to itself: the share
        (0-1) of frames at which it says what the bundled model does, and the share of routed
        decision tokens that ran."""
        rows = []
        for dialogues, frames, wanted in zip(self._parts, self._films, self._said, strict=True):
            metrics = teacher_forced(model, layout, dialogues)
            with decisions(model) as ran:
                said = narrated(model, layout, frames)
            rows.append(
                {
                    "lm_ppl": metrics.lm_ppl,
                    "time_diff_s": metrics.time_diff_s or 0.0,
                    "fluency": metrics.fluency,
                    "lm_correctness": metrics.lm_correctness,
                    "agreement": statistics.fmean(
                        a == b for a, b in zip(said, wanted, strict=True)
                    ),
                    "decisions_ran": statistics.fmean(ran or [1.0]),
                }
            )
        return rows

    def keeps(self) -> Knob:
        """Keep ratios."""
        return self._knob(str(KEEP), {str(keep): self.rows(*bundled(keep)) for keep in KEEPS})

    def routers(self) -> Knob:
        """What else could choose the tokens."""
        found = {router: self.rows(*bundled(router=router)) for router in ROUTERS}
        return self._knob("bounded", found)

    def decisions(self) -> Knob:
        """Whether the token that decides always runs."""
        found = {
            f"{'kept' if decision else 'free'} at {keep}": self.rows(
                *bundled(keep, decision=decision)
            )
            for keep in DECISION_KEEPS
            for decision in (True, False)
        }
        return self._knob(f"kept at {KEEP}", found)

    def _knob(self, default: str, found: dict[str, list[Row]]) -> Knob:
        parts = [
            {value: rows[part] for value, rows in found.items()} for part in range(len(self._parts))
        ]
        return gathered(default, parts)


def trained_elsewhere() -> dict[str, Any] | None:
    """What ``bench.model`` found after training each form, and where it stands; None where it has
    not been run."""
    for path in sorted(RESULTS.glob("*/model.json")):
        result = json.loads(path.read_text())
        return {
            "file": str(path.relative_to(RESULTS)),
            "commit": result["commit"],
            "cost_over_full": result["figures"]["cost_over_full"],
            "mean_losses": result["figures"]["mean_losses"],
        }
    return None


@contextmanager
def decisions(model: VideoLLMMoD) -> Iterator[list[float]]:
    """Collects, for each MoD layer and frame, whether the last token ran (1 or 0)."""
    ran: list[float] = []

    def note(_module: Any, _inputs: Any, routing: Routing) -> None:
        ran.extend(routing.kept[:, -1].float().tolist())

    hooks = [router.register_forward_hook(note) for router in model.routers.values()]
    yield ran
    for hook in hooks:
        hook.remove()


def narrated(model: VideoLLMMoD, layout: StreamLayout, frames: Tensor) -> Sequence[str | None]:
    """What the model says at each of ``frames``, left to itself."""
    return [outcome.text for outcome in Viewer(model, layout).watch(frames)]
