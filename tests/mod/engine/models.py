"""A small model that is about as often silent as it speaks, and an engine around it."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from mod.engine.cache import Memory
from mod.engine.engine import Engine
from mod.engine.events import Event
from mod.layout import StreamLayout, train_tokenizer
from mod.modeling import VideoLLMMoD
from tests.mod.plain import PlainSession
from tests.mod.small import small_model, some_frames

#: What the tokenizer learns its words from.
CORPUS = [
    f"{opening} {look} scene. The camera {move}."
    for opening in ("A", "Cut to a")
    for look in ("dark red", "green", "bright blue", "grey", "orange", "black")
    for move in ("holds still", "pans left", "pans right", "tilts up", "zooms in")
] * 4


@cache
def talking_model(family: str = "llama", **fields: Any) -> tuple[VideoLLMMoD, StreamLayout]:
    """Random weights, with the head's silence row set where about half of the frames speak."""
    options = {"frame_difference": True, "router": "bounded", "seed": 3, **fields}
    model = small_model(family, **options)
    layout = StreamLayout.of(train_tokenizer(CORPUS, model.config, 400), model.config)
    head = model.language_model.lm_head.weight
    states: list[Tensor] = []

    def note(_module: Any, _inputs: Any, out: Tensor) -> None:
        if len(out) == model.config.tokens_per_frame:
            states.append(out[-1].detach())

    for _ in range(20):
        session = PlainSession(model, layout, max_new_tokens=3)
        hook = model.language_model.model.norm.register_forward_hook(note)
        spoken = 0
        for frame in some_frames(40, seed=9):
            spoken += session.watch(frame[None])[0].text is not None
        hook.remove()
        if 12 <= spoken <= 28:
            return model, layout
        # Along the mean state after a frame all states agree: a multiple of it is a bias.
        seen = torch.stack(states)
        direction = seen.mean(0) / seen.mean(0).norm()
        with torch.no_grad():
            logits = seen @ head.T
            logits[:, layout.silence] = -torch.inf
            head[layout.silence] = direction * (logits.amax(1) / (seen @ direction)).median()
    raise AssertionError("no balance between silence and speech found")


def talking_engine(
    megabytes: float = 8.0, fields: dict[str, Any] | None = None, **options: Any
) -> Engine:
    """An engine with that model and small pages."""
    model, layout = talking_model(**(fields or {}))
    memory = Memory(model.config, int(megabytes * 2**20), page_size=8)
    return Engine(model, layout, memory, **options)


def drain(engine: Engine) -> list[Event]:
    """Step until nothing waits; what happened."""
    events: list[Event] = []
    for _ in range(5000):
        if not engine.busy:
            return events
        events += engine.step()
    raise AssertionError("the engine is busy for ever")
