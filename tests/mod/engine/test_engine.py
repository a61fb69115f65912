"""A session's words depend on its own inputs alone, whatever the engine does around it.

Guards against company, order, failure or a full memory that changes what a session says.
"""

from __future__ import annotations

import resource
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mod.checkpoint import TINY, find_checkpoint
from mod.cost import kv_bytes
from mod.engine.cache import Memory
from mod.engine.engine import Engine, UnknownSessionError
from mod.engine.events import Event, Failed, FrameSeen, TurnEnded, Word
from mod.engine.snapshot import SnapshotError
from mod.loading import load
from mod.modeling import VideoLLMMoD
from tests.mod.engine.models import drain, talking_engine, talking_model
from tests.mod.plain import PlainSession
from tests.mod.small import some_frames

FRAMES = some_frames(60, seed=9)
MAX_NEW = 3


@dataclass
class Script:
    """What one session was given, in order: frame numbers, or questions."""

    inputs: list[int | str] = field(default_factory=list)


def _plainly(script: Script) -> list[tuple[int | str, str]]:
    """What a plain session says to the same inputs, frame by frame."""
    session = PlainSession(*talking_model(), max_new_tokens=MAX_NEW)
    said: list[tuple[int | str, str]] = []
    frame = 0
    for given_ in script.inputs:
        if isinstance(given_, str):
            said.append((given_, session.ask(given_)))
            continue
        (outcome,) = session.watch(FRAMES[given_ : given_ + 1])
        if outcome.text is not None:
            said.append((frame, outcome.text))
        frame += 1
    return said


def _transcripts(events: list[Event]) -> dict[str, list[tuple[int | str, str]]]:
    found: dict[str, list[tuple[int | str, str]]] = defaultdict(list)
    for event in events:
        assert not isinstance(event, Failed), event
        if isinstance(event, TurnEnded):
            key = event.frame if event.frame is not None else str(event.question)
            found[event.session].append((key, event.text))
    return found


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.integers(0, 5), st.integers(1, 12)),
        st.tuples(st.just("ask"), st.integers(0, 5), st.just(0)),
        st.tuples(st.just("step"), st.just(0), st.integers(1, 4)),
        st.tuples(st.just("evict"), st.integers(0, 5), st.just(0)),
        st.tuples(st.just("fork"), st.integers(0, 5), st.just(0)),
        st.tuples(st.just("open"), st.just(0), st.just(0)),
    ),
    min_size=3,
    max_size=25,
)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(OPERATIONS, st.sampled_from(["copy", "rebuild"]), st.sampled_from([0.6, 8.0]))
def test_words_do_not_depend_on_what_happens_around(
    operations: list[tuple[str, int, int]], spill: str, megabytes: float
) -> None:
    """Guards batching, chunks, rollback, eviction, restore, rebuild and forks, all at once."""
    engine = talking_engine(megabytes, spill=spill, step_tokens=160)
    engine.open("s0", max_new_tokens=MAX_NEW)
    scripts = {"s0": Script()}
    events: list[Event] = []
    inherited: dict[str, list[tuple[int | str, str]]] = {}
    for number, (kind, which, amount) in enumerate(operations):
        name = list(scripts)[which % len(scripts)]
        if kind == "open" and len(scripts) < 5:
            fresh = f"s{len(scripts)}"
            engine.open(fresh, max_new_tokens=MAX_NEW)
            scripts[fresh] = Script()
        elif kind == "push" and len(scripts[name].inputs) < 40:
            start = len(scripts[name].inputs) % 40
            engine.push(name, FRAMES[start : start + amount])
            scripts[name].inputs += range(start, start + amount)
        elif kind == "ask":
            engine.ask(name, f"q{number}", f"q{number}")
            scripts[name].inputs.append(f"q{number}")
        elif kind == "evict":
            engine.evict(name)
        elif kind == "step":
            for _ in range(amount):
                events += engine.step()
        elif kind == "fork" and len(scripts) < 5:
            events += drain(engine)
            fresh = f"s{len(scripts)}"
            engine.fork(name, fresh)
            scripts[fresh] = Script(list(scripts[name].inputs))
            inherited[fresh] = [*inherited.get(name, []), *_transcripts(events).get(name, [])]
    events += drain(engine)
    found = _transcripts(events)
    for name, script in scripts.items():
        assert inherited.get(name, []) + found.get(name, []) == _plainly(script), name


@pytest.mark.slow
def test_bulk_streams_are_the_same_to_the_last_bit_in_any_company() -> None:
    """Guards a job's rows: who else was in the replica leaves no trace, not even in rounding."""

    def decided(company: int) -> list[float]:
        engine = talking_engine()
        for number in range(company):
            engine.open(f"x{number}", max_new_tokens=MAX_NEW, kind="live" if number % 2 else "bulk")
            engine.push(f"x{number}", FRAMES[number : number + 20])
        engine.open("a", max_new_tokens=MAX_NEW, kind="bulk")
        engine.push("a", FRAMES[:30])
        events = drain(engine)
        return [e.p_silence for e in events if isinstance(e, FrameSeen) and e.session == "a"]

    assert decided(0) == decided(1) == decided(4)


@pytest.mark.slow
def test_every_frame_is_decided_once_and_in_order() -> None:
    engine = talking_engine()
    engine.open("a", max_new_tokens=MAX_NEW)
    for start in (0, 7, 8, 30):
        engine.push("a", FRAMES[start : start + 7])
    events = drain(engine)
    assert [e.frame for e in events if isinstance(e, FrameSeen)] == list(range(28))
    spoken = [e.frame for e in events if isinstance(e, FrameSeen) and e.speaks]
    assert spoken == [e.frame for e in events if isinstance(e, TurnEnded)]
    layout = talking_model()[1]
    for turn in (e for e in events if isinstance(e, TurnEnded)):
        words = [e.token for e in events if isinstance(e, Word) and e.frame == turn.frame]
        assert layout.decode(words) == turn.text


@pytest.mark.slow
def test_cache_bytes_are_those_of_the_cost_model() -> None:
    """Guards against pages that hold skipped tokens, or that leak."""
    engine = talking_engine()
    engine.open("a", max_new_tokens=MAX_NEW)
    engine.push("a", FRAMES)
    drain(engine)
    config = talking_model()[0].config
    lengths = engine.lengths("a")
    n_text = lengths[1] - 60 * config.tokens_in_layer(1)
    expected = kv_bytes(config, 60, n_text, 4)
    rounding = 2 * sum(pool.page_bytes for pool in engine.memory.pools)
    assert expected <= engine.memory.used_bytes <= expected + rounding
    engine.close("a")
    assert engine.memory.used_bytes == 0


@pytest.mark.slow
@pytest.mark.long
def test_a_thousand_sessions_come_and_go_and_leave_nothing() -> None:
    """Guards against pages, features or logs that outlive their session."""
    engine = talking_engine(2.0, spill="rebuild")
    resident = []
    for number in range(1000):
        engine.open(f"n{number}", max_new_tokens=2)
        engine.push(f"n{number}", FRAMES[: 1 + number % 7])
        for _ in range(number % 5):
            engine.step()
        if number >= 20:
            engine.close(f"n{number - 20}")
        if number in (400, 999):
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            resident.append(pages * resource.getpagesize())
    for number in range(980, 1000):
        engine.close(f"n{number}")
    assert not engine.busy
    assert [pool.n_used for pool in engine.memory.pools] == [0, 0]
    assert resident[1] - resident[0] < 16 * 2**20


@pytest.mark.slow
def test_a_cancelled_turn_ends_where_it_stands_and_the_stream_goes_on() -> None:
    engine = talking_engine()
    engine.open("a", max_new_tokens=50)
    engine.ask("a", "q", "why")
    engine.push("a", FRAMES[:9])
    words: list[Event] = []
    while len(words) < 3:
        words += [e for e in engine.step() if isinstance(e, Word)]
    engine.cancel("a")
    events = engine.step()
    (ended,) = [e for e in events if isinstance(e, TurnEnded)]
    assert ended.cancelled
    assert ended.question == "q"
    assert not engine.busy
    # The stream is what it would be had the answer been as short as that.
    short = talking_engine()
    short.open("a", max_new_tokens=len(words))
    short.ask("a", "q", "why")
    drain(short)
    answers = []
    for one in (engine, short):
        one.ask("a", "r", "and then")
        answers.append([e.token for e in drain(one) if isinstance(e, Word)])
    assert answers[0][: len(words)] == answers[1][: len(words)]
    assert answers[0]


@pytest.mark.slow
@pytest.mark.parametrize("with_cache", [True, False])
@pytest.mark.parametrize("steps", [0, 3, 6, 11])
def test_a_snapshot_goes_on_elsewhere_token_for_token(with_cache: bool, steps: int) -> None:
    """Guards recovery, also in the middle of a narration: after some steps, from bytes alone."""
    engine = talking_engine()
    engine.open("a", max_new_tokens=MAX_NEW)
    engine.push("a", FRAMES[:20])
    events: list[Event] = []
    for _ in range(steps):
        events += engine.step()
    data = engine.snapshot("a", with_cache=with_cache)
    seen = sum(isinstance(e, FrameSeen) for e in events)
    other = talking_engine()
    other.restore("b", data)
    other.push("b", FRAMES[seen:20])
    other.ask("b", "q", "what now?")
    engine.ask("a", "q", "what now?")
    rest, theirs = drain(engine), drain(other)
    assert _transcripts(theirs)["b"] == _transcripts(rest)["a"]
    ours = [(e.frame, e.token) for e in rest if isinstance(e, Word)]
    assert [(e.frame, e.token) for e in theirs if isinstance(e, Word)] == ours
    assert other.lengths("b") == engine.lengths("a")


def test_a_snapshot_that_does_not_fit_is_refused() -> None:
    engine = talking_engine(identity="one")
    engine.open("a")
    data = engine.snapshot("a")
    with pytest.raises(SnapshotError, match="model 'one', not 'two'"):
        talking_engine(identity="two").restore("a", data)
    with pytest.raises(SnapshotError, match="no snapshot"):
        engine.restore("b", data[:40])
    with pytest.raises(ValueError, match="already"):
        engine.restore("a", data)


@pytest.mark.slow
def test_a_step_that_fails_harms_only_who_caused_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards isolation: poisoned features of one session, a model that raises for another."""
    script = Script([*range(12)])
    engine = talking_engine()
    for name in ("good", "bad", "nan"):
        engine.open(name, max_new_tokens=MAX_NEW)
        engine.push(name, FRAMES[:12])
    model = talking_model()[0]
    encode = type(model).encode_frames

    def poisoned(self: object, frames: Tensor, before: Tensor) -> Tensor:
        features = encode(self, frames, before)  # type: ignore[arg-type]
        if "nan" in broken:
            features = features.clone()
            features[-1] = torch.nan
            broken.discard("nan")
        return features

    broken = {"nan"}
    monkeypatch.setattr(type(model), "encode_frames", poisoned)
    events = engine.step()
    events += drain(engine)
    failed = [e for e in events if isinstance(e, Failed)]
    assert len(failed) == 1
    victim = failed[0].session
    assert victim == "nan"
    # The poisoned one of a chunk, and none around it.
    assert failed[0].frame == 1
    seen = [e.frame for e in events if isinstance(e, FrameSeen) and e.session == victim]
    assert seen == [0, *range(2, 12)]
    said = _transcripts([e for e in events if not isinstance(e, Failed)])
    for name in {"good", "bad"}:
        assert said[name] == _plainly(script)
    engine.ask(victim, "still", "still there?")
    after = _transcripts(drain(engine))
    assert [question for question, _ in after[victim]] == ["still"]


@pytest.mark.slow
def test_a_silent_job_on_a_cpu_leaves_room_between_its_steps() -> None:
    """Guards a live session that arrives against waiting for a chunk that is large for nothing."""
    model, layout = load(find_checkpoint(TINY))
    memory = Memory(model.config, 64 * 2**20)
    engine = Engine(model, layout, memory)
    engine.open("job", kind="bulk")
    side = model.config.vision_config.image_size
    engine.push("job", torch.full((300, side, side, 3), 60, dtype=torch.uint8))
    seen = []
    while engine.busy:
        seen.append(sum(isinstance(event, FrameSeen) for event in engine.step()))
    assert sum(seen) == 300
    assert max(seen) == 32


@pytest.mark.slow
def test_frame_by_frame_nothing_is_run_in_vain() -> None:
    """Guards ``max_chunk``: the first frames, and those after words, are bounded by it as well."""
    said, ran = [], []
    for most in (None, 1):
        engine = talking_engine(max_chunk=most)
        engine.open("a", max_new_tokens=MAX_NEW)
        engine.push("a", FRAMES)
        said.append(_transcripts(drain(engine)))
        ran.append((engine.figures.frames_run, engine.figures.frames_kept))
    assert said[0] == said[1]
    assert ran[0][0] > ran[0][1] == len(FRAMES)
    assert ran[1] == (len(FRAMES), len(FRAMES))
    with pytest.raises(ValueError, match="max_chunk must be at least 1, not 0"):
        talking_engine(max_chunk=0)


def test_frames_that_cannot_be_encoded_fail_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = talking_engine()
    poison = FRAMES[:3].clone()
    poison[1] = 77
    for name, frames in (("good", FRAMES[:6]), ("bad", poison)):
        engine.open(name, max_new_tokens=MAX_NEW)
        engine.push(name, frames)
    model = talking_model()[0]
    encode = type(model).encode_frames

    def failing(self: VideoLLMMoD, frames: Tensor, before: Tensor) -> Tensor:
        if any(bool((frame == 77).all()) for frame in frames):
            raise RuntimeError("cannot look at this")
        return encode(self, frames, before)

    monkeypatch.setattr(type(model), "encode_frames", failing)
    events = drain(engine)
    failed = [e for e in events if isinstance(e, Failed)]
    assert [(e.session, e.frame, e.error) for e in failed] == [
        ("bad", 1, "RuntimeError: cannot look at this")
    ]
    said = _transcripts([e for e in events if not isinstance(e, Failed)])
    assert said["good"] == _plainly(Script([*range(6)]))


@pytest.mark.parametrize("first", [0, 2])
def test_a_frame_whose_text_cannot_be_made_fails_alone(
    monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    """Guards against a layout that raises, as for a time that is no number: it must end no other
    session, where what waits is looked at (frame 0, which follows the opening) as where a chunk is
    put together."""
    engine = talking_engine()
    for name, fps in (("good", 2.0), ("bad", 0.125)):
        engine.open(name, max_new_tokens=MAX_NEW, fps=fps)
        engine.push(name, FRAMES[:6])
    layout = talking_model()[1]
    before = type(layout).before

    def failing(self: object, number: int, last: int, fps: float, **options: Any) -> Any:
        if fps == 0.125 and number >= first:
            raise OverflowError("cannot convert float infinity to integer")
        return before(layout, number, last, fps, **options)

    monkeypatch.setattr(type(layout), "before", failing)
    events = drain(engine)
    failed = [e for e in events if isinstance(e, Failed)]
    assert [(e.session, e.frame) for e in failed] == [("bad", frame) for frame in range(first, 6)]
    assert {e.error for e in failed} == {"OverflowError: cannot convert float infinity to integer"}
    said = _transcripts([e for e in events if not isinstance(e, Failed)])
    assert said["good"] == _plainly(Script([*range(6)]))
    engine.ask("bad", "still", "still there?")
    after = _transcripts(drain(engine))
    assert [question for question, _ in after["bad"]] == ["still"]


def test_a_model_that_raises_ends_one_turn_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = talking_engine()
    for name in ("a", "b"):
        engine.open(name, max_new_tokens=MAX_NEW)
        engine.push(name, FRAMES[:6])
    engine.ask("b", "poison", "z" * 40)
    model = talking_model()[0]
    forward = model.forward

    def failing(stream: object, routings: object = None) -> Tensor:
        lengths = stream.lengths  # type: ignore[attr-defined]
        if any(30 < n < 60 for n in lengths) and not len(stream.frame_starts):  # type: ignore[attr-defined]
            raise torch.OutOfMemoryError("out of memory")
        out: Tensor = forward(stream, routings)  # type: ignore[arg-type]
        return out

    monkeypatch.setattr(model, "forward", failing)
    events = drain(engine)
    failed = [e for e in events if isinstance(e, Failed)]
    assert [(e.session, e.question) for e in failed] == [("b", "poison")]
    assert "out of memory" in failed[0].error
    said = _transcripts([e for e in events if not isinstance(e, Failed)])
    assert said["a"] == said["b"] == _plainly(Script([*range(6)]))


def test_a_session_that_outgrows_memory_fails_alone() -> None:
    engine = talking_engine(0.05)
    engine.open("big", max_new_tokens=1)
    engine.push("big", FRAMES)
    engine.open("small", max_new_tokens=1)
    engine.push("small", FRAMES[:1])
    events = drain(engine)
    assert any("no longer fits" in e.error for e in events if isinstance(e, Failed))
    assert any(isinstance(e, FrameSeen) and e.session == "small" for e in events)


def test_a_turn_that_is_stopped_leaves_what_waits() -> None:
    """Guards acknowledged inputs: ending a narration forgets no frame and no question, and where
    it is ended after as many words again, the stream is the same."""

    def stopped(words: int, one_by_one: bool) -> list[Event]:
        engine = talking_engine()
        engine.open("a", max_new_tokens=MAX_NEW)
        if one_by_one:
            for frame in FRAMES[:12]:
                engine.push("a", frame[None])
        else:
            engine.push("a", FRAMES[:12])
        engine.ask("a", "taken back", "never mind")
        engine.ask("a", "q", "what now?")
        assert engine.withdraw("a", "taken back")
        assert not engine.withdraw("a", "taken back")
        events: list[Event] = []
        said = 0
        while engine.waits("a"):
            for event in engine.step():
                events.append(event)
                said += isinstance(event, Word) and event.question is None
                if said == words:
                    said += 1
                    turn = engine.speaking("a")
                    assert turn is not None
                    assert turn.frame is not None
                    engine.stop("a")
        assert engine.speaking("a") is None
        return events

    events = stopped(2, one_by_one=False)
    assert [e.frame for e in events if isinstance(e, FrameSeen)] == list(range(12))
    ended = [e for e in events if isinstance(e, TurnEnded)]
    assert ended[0].cancelled
    assert [e.question for e in ended if e.question] == ["q"]
    again = stopped(2, one_by_one=True)
    assert _transcripts(again) == _transcripts(events)


def test_what_cannot_be_pushed_is_refused_by_shape() -> None:
    engine = talking_engine()
    engine.open("a")
    with pytest.raises(ValueError, match=r"must be \(n, 48, 48, 3\) uint8, not \(2, 10, 10, 3\)"):
        engine.push("a", torch.zeros(2, 10, 10, 3, dtype=torch.uint8))
    with pytest.raises(ValueError, match="float32"):
        engine.push("a", torch.zeros(2, 48, 48, 3))
    with pytest.raises(ValueError, match="already"):
        engine.open("a")
    with pytest.raises(UnknownSessionError):
        engine.push("b", FRAMES)
    assert not engine.busy


@pytest.mark.parametrize("most", [None, 1, MAX_NEW, 3 * MAX_NEW])
def test_a_question_may_have_a_bound_of_its_own(
    most: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against answers that end at the bound of narrations, and seem whole."""
    engine = talking_engine()
    monkeypatch.setattr(type(engine._layout), "ends", frozenset())
    engine.open("a", max_new_tokens=MAX_NEW)
    engine.push("a", FRAMES[:4])
    engine.ask("a", "q", "what now?", most)
    engine.ask("a", "again", "what now?")
    words = Counter(e.question for e in drain(engine) if isinstance(e, Word) and e.question)
    assert words == {"q": most or MAX_NEW, "again": MAX_NEW}
