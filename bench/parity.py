"""Open models beside transformers' own ``generate``: the engine must say the same tokens."""

from __future__ import annotations

import tempfile
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch

from infra.openmodels import reference
from mod.checkpoint import OPEN, Checkpoint, find_checkpoint
from mod.engine.cache import Memory
from mod.engine.engine import Engine
from mod.engine.events import Word
from mod.loading import load_any

_QUESTION, _FRAMES, _MOST = "What happens in the video?", 7, 24


def parity(videos: int) -> dict[str, dict[str, Any]]:
    """Of each family, tokens that were compared and how many of them differ.

    Args:
        videos: of ``_FRAMES`` frames each; the engine is given them in chunks of several sizes.
    """
    found = {}
    for family in OPEN:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            reference.make(family, folder)
            checkpoint = find_checkpoint(name)
            pairs = []
            for seed in range(videos):
                film = reference.frames_of(_FRAMES, checkpoint.image_size, seed)
                wanted = reference.says(folder, film, _QUESTION, checkpoint.fps, _MOST)
                said, ends = _said(checkpoint, torch.from_numpy(film), chunk=1 + seed)
                # The engine does not tell the token that ends an answer.
                pairs += list(zip_longest(said, wanted[:-1] if wanted[-1] in ends else wanted))
            different = sum(ours != theirs for ours, theirs in pairs)
            found[family] = {"tokens": len(pairs), "mismatches": different}
    return found


def _said(
    checkpoint: Checkpoint, film: torch.Tensor, chunk: int
) -> tuple[list[int], frozenset[int]]:
    """The engine's greedy answer, and the tokens that end one."""
    model, layout = load_any(checkpoint)
    engine = Engine(model, layout, Memory(model.config, 2**26))
    engine.open("video", instruction="", max_new_tokens=_MOST, frames=len(film))
    events = []
    for start in range(0, len(film), chunk):
        engine.push("video", film[start : start + chunk])
        while engine.busy:
            events += engine.step()
    engine.ask("video", "question", _QUESTION)
    while engine.busy:
        events += engine.step()
    said = [event.token for event in events if isinstance(event, Word) and event.question]
    return said, layout.ends
