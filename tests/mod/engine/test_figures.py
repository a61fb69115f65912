"""What an engine counts of itself, held against what it tells of the same steps."""

from __future__ import annotations

from mod.engine.cache import Memory
from mod.engine.engine import Engine
from mod.engine.events import Failed, FrameSeen, Word
from mod.engine.scheduler import Kind
from tests.mod.engine.models import drain, talking_model
from tests.mod.small import some_frames

FRAMES = some_frames(40, seed=9)


def test_figures_are_those_of_the_events() -> None:
    """Guards a service's dashboards against numbers that nothing corresponds to."""
    model, layout = talking_model()
    engine = Engine(model, layout, Memory(model.config, 8 * 2**20, page_size=8))
    engine.open("a", max_new_tokens=3)
    engine.open("b", max_new_tokens=3, kind="bulk")
    engine.push("a", FRAMES)
    engine.push("b", FRAMES[:8])
    engine.ask("a", "q", "What is there?")
    events = drain(engine)
    did = engine.figures
    assert did.frames_kept == sum(isinstance(event, FrameSeen) for event in events) == 48
    # It speaks now and then, so that some of what is run ahead is run again.
    assert did.frames_kept < did.frames_run < 8 * did.frames_kept
    assert did.words == sum(isinstance(event, Word) for event in events) > 0
    assert did.failures == 0
    assert engine.steps <= did.parts <= 2 * engine.steps
    n = model.config.tokens_per_frame
    frames = did.tokens[Kind.LIVE] + did.tokens[Kind.BULK]
    assert frames >= did.frames_run * n
    assert did.tokens[Kind.DECODE] > 0
    assert did.tokens[Kind.QUESTION] >= len(layout.encode("What is there?"))


def test_failures_and_evictions_are_counted() -> None:
    """Guards against a pool that is too small and no number that says so."""
    model, layout = talking_model()
    engine = Engine(model, layout, Memory(model.config, 2**13, page_size=8))
    for name in ("a", "b"):
        engine.open(name, max_new_tokens=3)
    failed = 0
    for name in ("a", "b", "a"):
        engine.push(name, FRAMES)
        failed += sum(isinstance(event, Failed) for event in drain(engine))
    assert engine.figures.failures == failed > 0
    before = engine.figures.evictions
    engine.evict("a")
    engine.evict("a")
    assert engine.figures.evictions <= before + 1
    assert engine.figures.evictions > 0
