"""Models that see two frames as one, beside those that see one: every frame is told of when it
comes, and what becomes of a frame that waits for another does not depend on chance.

Guards against a frame that is lost, told late or told by chance where it waits for another.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from infra.openmodels import reference
from mod.checkpoint import OPEN, find_checkpoint
from mod.decoder import RoutedDecoder
from mod.engine.cache import Memory
from mod.engine.engine import Engine
from mod.engine.events import Event, Failed, FrameSeen, TurnEnded, Word
from mod.layout import Layout
from mod.loading import load_any

Loaded = tuple[RoutedDecoder, Layout]


@pytest.fixture(scope="module", params=OPEN)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    made = tmp_path_factory.mktemp(request.param)
    reference.make(request.param, made)
    return load_any(find_checkpoint(str(made)))


def _engine(loaded: Loaded) -> Engine:
    model, layout = loaded
    engine = Engine(model, layout, Memory(model.config, 2**26), identity="tiny")
    engine.open("s", instruction="", max_new_tokens=6)
    return engine


def _run(engine: Engine) -> list[Event]:
    events = []
    while engine.busy:
        events += engine.step()
    return events


def _film(loaded: Loaded, n: int) -> Tensor:
    return torch.from_numpy(reference.frames_of(n, loaded[0].config.image_size, 3))


@pytest.mark.slow
def test_each_frame_is_told_of_when_it_comes(loaded: Loaded) -> None:
    """Guards clients that wait for one frame before they send the next."""
    engine = _engine(loaded)
    for number, frame in enumerate(_film(loaded, 5)):
        engine.push("s", frame[None])
        assert [e.frame for e in _run(engine) if isinstance(e, FrameSeen)] == [number]


@pytest.mark.slow
def test_a_frame_that_waits_survives_a_snapshot(loaded: Loaded) -> None:
    def told(cut: int | None) -> list[Any]:
        engine = _engine(loaded)
        events: list[Any] = []
        for number, frame in enumerate(_film(loaded, 6)):
            engine.push("s", frame[None])
            events += _run(engine)
            if number == cut:
                data = engine.snapshot("s", with_cache=bool(number % 2))
                engine = _engine(loaded)
                engine.close("s")
                engine.restore("s", data)
        engine.ask("s", "q", "And then?")
        return events + _run(engine)

    undisturbed = told(None)
    for cut in range(6):
        assert told(cut) == undisturbed


@pytest.mark.slow
def test_a_fork_shares_what_waits_and_goes_its_own_way(loaded: Loaded) -> None:
    engine = _engine(loaded)
    film = _film(loaded, 6)
    engine.push("s", film[:3])
    _run(engine)
    engine.fork("s", "other")
    engine.ask("other", "q", "And then?")
    _run(engine)
    engine.close("other")
    engine.push("s", film[3:])
    engine.ask("s", "q", "And then?")
    alone = _engine(loaded)
    alone.push("s", film)
    alone.ask("s", "q", "And then?")
    said = [[e for e in _run(one) if isinstance(e, Word) and e.question] for one in (engine, alone)]
    assert said[0] == said[1]


def test_a_question_that_is_withdrawn_leaves_no_trace(loaded: Loaded) -> None:
    film = _film(loaded, 5)
    ended = []
    for withdraws in (False, True):
        engine = _engine(loaded)
        engine.push("s", film[:3])
        if withdraws:
            engine.ask("s", "gone", "What?")
            assert engine.withdraw("s", "gone")
        engine.push("s", film[3:])
        engine.ask("s", "q", "And then?")
        ended.append([e for e in _run(engine) if isinstance(e, TurnEnded)])
    assert ended[0] == ended[1]


@pytest.mark.slow
@pytest.mark.parametrize("bad", range(6))
def test_a_frame_that_cannot_be_seen_harms_its_own_step_alone(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch, bad: int
) -> None:
    """Guards numbers of frames, each of which is told of once, and the frames around."""
    film = _film(loaded, 6)
    film[bad] = 255
    encode = type(loaded[0]).encode_frames

    def choosy(model: Any, frames: Tensor, before: Tensor) -> Tensor:
        if (frames == 255).flatten(1).all(1).any():
            raise ValueError("too bright")
        return encode(model, frames, before)

    monkeypatch.setattr(type(loaded[0]), "encode_frames", choosy)
    engine = _engine(loaded)
    engine.push("s", film)
    engine.ask("s", "q", "And then?")
    events = _run(engine)
    told = [e.frame for e in events if isinstance(e, FrameSeen)]
    failed = [e for e in events if isinstance(e, Failed) and e.question is None]
    # A frame that was told of may fail afterwards, when the model is asked about it.
    assert {*told, *(e.frame for e in failed)} == set(range(6))
    assert len(told) == len(set(told))
    per_step = loaded[0].config.frames_per_step
    assert {e.frame for e in failed} <= {bad, bad - bad % per_step, bad - bad % per_step + 1}
    assert any(isinstance(e, TurnEnded) and e.question == "q" for e in events)


@pytest.mark.slow
@pytest.mark.parametrize("router", ["redundancy", "norm", "attention", "uniform", "random"])
def test_tokens_that_are_skipped_are_the_same_in_chunks_of_any_size(
    loaded: Loaded, router: str
) -> None:
    folder = Path(loaded[0].config.base_config.name_or_path)
    routed = load_any(find_checkpoint(str(folder)), keep_ratio=0.5, router=f"{router}:after-1")
    film = _film(loaded, 7)
    said = []
    for size in (1, 3, 7):
        engine = _engine(routed)
        for start in range(0, 7, size):
            engine.push("s", film[start : start + size])
            _run(engine)
        engine.ask("s", "q", "And then?")
        words = [e.token for e in _run(engine) if isinstance(e, Word) and e.question]
        said.append((words, engine.lengths("s")))
    assert said[0] == said[1] == said[2]
    assert said[0][1][1] < said[0][1][0]
