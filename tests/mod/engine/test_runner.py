"""A step that fails together is run again one by one, from where each session was."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from mod.asking import Asking
from mod.engine import work
from mod.engine.cache import Memory
from mod.engine.engine import Engine
from mod.engine.events import Event, Failed, TurnEnded, Word
from mod.engine.policy import Retrieve
from mod.layout import MarkedLayout
from tests.mod.engine.models import drain, talking_engine, talking_model
from tests.mod.small import some_frames

FRAMES = some_frames(12, seed=9)
MAX_NEW = 3
#: Several parts of text.
LONG = "Cut to a dark red scene. The camera pans left. " * 4


class AskedLayout(MarkedLayout):
    """Of a model that is asked in order to narrate, in an aside."""

    asking: ClassVar[Asking] = Asking("What now?", every_s=1.0)


def asked_engine() -> Engine:
    model, layout = talking_model()
    return Engine(model, AskedLayout(**vars(layout)), Memory(model.config, 2**23, page_size=8))


def told(events: list[Event]) -> dict[str, list[Any]]:
    """What each session said, word by word."""
    found: dict[str, list[Any]] = {"a": [], "b": []}
    for event in events:
        assert not isinstance(event, Failed)
        if isinstance(event, Word):
            found[event.session].append((event.frame, event.question, event.token))
        elif isinstance(event, TurnEnded):
            found[event.session].append((event.frame, event.question, event.text))
    return found


def refuse_company(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Have every forward over several sessions raise; how many each was over is noted."""
    model = talking_model()[0]
    forward = model.forward
    refused: list[int] = []

    def failing(stream: Any, routings: Any = None) -> Tensor:
        out: Tensor = forward(stream, routings)
        if len(stream.lengths) > 1:
            # What it fed lies in the caches by now.
            refused.append(len(stream.lengths))
            raise torch.OutOfMemoryError("out of memory")
        return out

    monkeypatch.setattr(model, "forward", failing)
    return refused


def run(engine: Engine, question: str, **options: Any) -> tuple[dict[str, list[Any]], list[int]]:
    for name in ("a", "b"):
        engine.open(name, max_new_tokens=MAX_NEW, **options)
        engine.push(name, FRAMES[:8])
    engine.ask("a", "q", question)
    engine.push("a", FRAMES[8:])
    engine.ask("b", "q", f"{question} {question}")
    said = told(drain(engine))
    return said, engine.lengths("a") + engine.lengths("b")


@pytest.mark.parametrize("kind", ["text in parts", "asides", "retrieval"])
def test_what_is_not_committed_outlives_a_neighbours_failure(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against a retry on a cache that lacks what its session had fed before: the parts of
    a long question, the prompt of an aside; and against a look back that is taken twice."""
    monkeypatch.setattr(work, "MOST_TEXT", 16)
    options: dict[str, Any] = {"policy": Retrieve(4, 2, 64, blocks=1)} if kind[0] == "r" else {}
    make = asked_engine if kind == "asides" else talking_engine
    question = LONG if kind == "text in parts" else "what now?"
    undisturbed = run(make(), question, **options)
    refused = refuse_company(monkeypatch)
    assert run(make(), question, **options) == undisturbed
    assert len(refused) > 3
    assert any(words for words in undisturbed[0].values())
