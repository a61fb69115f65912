"""Routers without training keep the same tokens however the engine gets at a frame."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

from mod.engine import runner
from mod.engine.engine import Engine
from mod.engine.events import FrameSeen, TurnEnded
from mod.engine.policy import Window
from tests.mod.engine.forgetful import ForgetfulSession
from tests.mod.engine.models import drain, talking_engine, talking_model
from tests.mod.plain import PlainSession
from tests.mod.small import some_frames

UNTRAINED = ("redundancy", "norm", "attention")
MAX_NEW = 3
#: Between probabilities of silence: a random model that keeps another token is not far off.
CLOSE = 3e-6
Told = tuple[list[float], list[str]]


def _film() -> Tensor:
    """(40, 48, 48, 3) pictures of which one patch in nine changes at a time, at times none."""
    film = some_frames(40, seed=9)
    for i in range(1, 40):
        whole = film[i - 1].clone()
        if i % 5:
            y, x = 16 * (i % 3), 16 * (i // 3 % 3)
            whole[y : y + 16, x : x + 16] = film[i, y : y + 16, x : x + 16]
        film[i] = whole
    return film


FILM = _film()


@cache
def _plainly(router: str) -> Told:
    session = PlainSession(*talking_model(router=router), max_new_tokens=MAX_NEW)
    outcomes = session.watch(FILM)
    return [o.p_silence for o in outcomes], [o.text for o in outcomes if o.text is not None]


def _told(engine: Engine) -> Told:
    events = drain(engine)
    return (
        [e.p_silence for e in events if isinstance(e, FrameSeen)],
        [e.text for e in events if isinstance(e, TurnEnded)],
    )


def _same(parts: list[Told], router: str) -> None:
    p_silence, texts = _plainly(router)
    assert [t for _, part in parts for t in part] == texts
    assert [p for part, _ in parts for p in part] == pytest.approx(p_silence, rel=0, abs=CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize("router", UNTRAINED)
def test_chunks_of_any_size_tell_the_same(router: str) -> None:
    """Guards against a router that compares a frame with whichever came in the same chunk."""
    for sizes in ([40], [1] * 40, [7, 1, 20, 12]):
        engine = talking_engine(fields={"router": router})
        engine.open("a", max_new_tokens=MAX_NEW)
        parts = []
        for part in torch.split(FILM, sizes):
            engine.push("a", part)
            parts.append(_told(engine))
        _same(parts, router)


@pytest.mark.slow
@pytest.mark.parametrize("router", UNTRAINED)
def test_an_evicted_session_goes_on_as_it_was(router: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards a log rebuilt in pieces, where a piece begins with a frame that has one before."""
    monkeypatch.setattr(runner, "REBUILD_TOKENS", 30)
    for spill in ("rebuild", "copy"):
        engine = talking_engine(fields={"router": router}, spill=spill)
        engine.open("a", max_new_tokens=MAX_NEW)
        parts = []
        for part in torch.split(FILM, 8):
            engine.push("a", part)
            parts.append(_told(engine))
            engine.evict("a")
        _same(parts, router)


@pytest.mark.slow
@pytest.mark.parametrize("router", UNTRAINED)
@pytest.mark.parametrize("with_cache", [True, False])
def test_a_restored_session_goes_on_as_it_was(router: str, with_cache: bool) -> None:
    """Guards the frame before the first that is pushed elsewhere."""
    engine = talking_engine(fields={"router": router})
    engine.open("a", max_new_tokens=MAX_NEW)
    engine.push("a", FILM[:14])
    parts = [_told(engine)]
    other = talking_engine(fields={"router": router})
    other.restore("a", engine.snapshot("a", with_cache=with_cache))
    other.push("a", FILM[14:])
    _same([*parts, _told(other)], router)


@pytest.mark.slow
@pytest.mark.parametrize("router", UNTRAINED)
def test_a_fork_goes_on_as_its_origin(router: str) -> None:
    """Guards against a fork whose first frame is compared with none."""
    engine = talking_engine(fields={"router": router})
    engine.open("a", max_new_tokens=MAX_NEW)
    engine.push("a", FILM[:14])
    parts = [_told(engine)]
    engine.fork("a", "b")
    engine.push("a", FILM[30:])
    drain(engine)
    engine.push("b", FILM[14:])
    _same([*parts, _told(engine)], router)


@pytest.mark.slow
@pytest.mark.parametrize("router", UNTRAINED)
@pytest.mark.parametrize("moves", [False, True])
def test_a_window_that_lets_go_of_frames_still_has_the_last(router: str, moves: bool) -> None:
    """Guards the frame before the next where all of a log's frames may have left it."""
    policy = Window(frames=4, block=4, text=12, sinks=4)
    plain = ForgetfulSession(*talking_model(router=router), policy, MAX_NEW)
    texts = [text for frame in FILM if (text := plain.watch(frame[None])) is not None]
    engine = talking_engine(fields={"router": router})
    engine.open("a", max_new_tokens=MAX_NEW, policy=policy)
    parts = []
    for part in torch.split(FILM, 5):
        engine.push("a", part)
        parts.append(_told(engine))
        if moves:
            data = engine.snapshot("a")
            engine = talking_engine(fields={"router": router})
            engine.restore("a", data)
    assert [t for _, part in parts for t in part] == texts
    assert [p for part, _ in parts for p in part] == pytest.approx(
        plain.p_silence, rel=0, abs=CLOSE
    )


@pytest.mark.slow
def test_a_last_frame_that_left_the_log_is_in_the_snapshot() -> None:
    """Guards a window in which only words are left when the session moves."""
    engine = talking_engine(fields={"router": "redundancy"})
    engine.open("a", max_new_tokens=MAX_NEW, policy=Window(frames=4, block=4, text=12, sinks=4))
    engine.push("a", FILM[:9])
    drain(engine)
    for number in range(12):
        engine.ask("a", f"q{number}", "what is it that you see now?")
        drain(engine)
    state = engine._sessions["a"]
    assert not state.log.features
    other = talking_engine(fields={"router": "redundancy"})
    other.restore("a", engine.snapshot("a"))
    moved = other._sessions["a"].log.last
    assert state.log.last is not None
    assert moved is not None
    assert torch.equal(moved, state.log.last)
