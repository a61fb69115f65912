"""What the router kept of each frame, of open models: those that see two frames as one, too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from infra.openmodels import reference
from mod.checkpoint import OPEN, find_checkpoint
from mod.engine.cache import Memory
from mod.engine.engine import Engine
from mod.loading import load_any
from mod.routing import Routing
from tests.mod.engine.models import drain


@pytest.mark.parametrize("family", OPEN)
def test_frames_fed_together_have_the_counts_of_frames_fed_alone(
    family: str, tmp_path: Path
) -> None:
    """Guards against counts of a step that are told of the wrong one of its frames."""
    reference.make(family, tmp_path)
    model, layout = load_any(find_checkpoint(str(tmp_path)), 0.5, "norm:1")
    per_step, n = model.config.frames_per_step, 7
    film = torch.from_numpy(reference.frames_of(n, model.config.image_size, 3))
    routed: list[list[int]] = []

    def note(_module: Any, _inputs: Any, out: Routing) -> None:
        routed.extend(out.kept.int().tolist())

    engine = Engine(model, layout, Memory(model.config, 2**26))
    # Nobody asks it to narrate: each step is fed once.
    for name in ("alone", "together"):
        engine.open(name, instruction="", max_new_tokens=3, asked=False)
        engine.watch_kept(name, n)
    hook = model.routers["1"].register_forward_hook(note)
    for frame in film:
        engine.push("alone", frame[None])
        drain(engine)
    hook.remove()
    engine.push("together", film)
    drain(engine)
    whole = n // per_step * per_step
    first, rows, columns = model.config.token_grid
    assert rows * columns == model.config.tokens_per_frame
    for number in range(whole):
        for name in ("alone", "together"):
            kept = engine.kept(name, number)
            assert kept is not None
            assert (kept.layers, kept.counts) == (1, routed[number // per_step][first:])
    # The last one waits for another, until something is asked of it.
    for number in range(whole, n):
        assert engine.kept("together", number) is None
        engine.ask("together", "q", "What is it?")
        drain(engine)
        assert engine.kept("together", number) is not None
