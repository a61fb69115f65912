"""What sessions forget, and what they do not: windows, retrieval, endless streams.

Guards against memory that grows with the stream, and against policies that change what a session
says while nothing has left.
"""

from __future__ import annotations

import resource
from collections import defaultdict
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mod.engine.events import Event, Failed, FrameSeen, TurnEnded, Word
from mod.engine.log import FRAME
from mod.engine.policy import Full, Policy, Retrieve, Window
from tests.mod.engine.forgetful import ForgetfulSession
from tests.mod.engine.models import drain, talking_engine, talking_model
from tests.mod.plain import PlainSession
from tests.mod.small import some_frames

FRAMES = some_frames(60, seed=9)
MAX_NEW = 3
WINDOW = Window(frames=8, block=4, text=12, sinks=4)
RETRIEVE = Retrieve(frames=8, block=4, text=12, sinks=4, blocks=2)
Said = list[tuple[int | str, str]]


def _transcripts(events: list[Event]) -> dict[str, Said]:
    found: dict[str, Said] = defaultdict(list)
    for event in events:
        assert not isinstance(event, Failed), event
        if isinstance(event, TurnEnded):
            key = event.frame if event.frame is not None else str(event.question)
            found[event.session].append((key, event.text))
    return found


def _forgetfully(script: tuple[int | str, ...], policy: Window) -> tuple[Said, list[float]]:
    """What the plain session with a window says; its probabilities of silence."""
    session = ForgetfulSession(*talking_model(), policy, MAX_NEW)
    said: Said = []
    frame = 0
    for given_ in script:
        if isinstance(given_, str):
            said.append((given_, session.ask(given_)))
            continue
        text = session.watch(FRAMES[given_ : given_ + 1])
        if text is not None:
            said.append((frame, text))
        frame += 1
    return said, session.p_silence


@cache
def _alone(script: tuple[int | str, ...], policy: Window) -> tuple[Said, list[int], list[float]]:
    """What one session in an engine of its own says, frame by frame; its lengths at the end, and
    its probabilities of silence."""
    engine = talking_engine()
    engine.open("a", max_new_tokens=MAX_NEW, policy=policy)
    events: list[Event] = []
    for given_ in script:
        if isinstance(given_, str):
            engine.ask("a", given_, given_)
        else:
            engine.push("a", FRAMES[given_ : given_ + 1])
        events += drain(engine)
    quiet = [event.p_silence for event in events if isinstance(event, FrameSeen)]
    return _transcripts(events)["a"], engine.lengths("a"), quiet


SCRIPTS = st.lists(
    st.one_of(st.integers(0, 59), st.integers(0, 9).map(lambda n: f"q{n}")),
    min_size=10,
    max_size=50,
)


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(SCRIPTS, st.sampled_from([WINDOW, replace(WINDOW, block=2, text=30, sinks=0)]))
def test_a_window_says_what_a_plain_session_with_fresh_rotations_says(
    script: list[int | str], policy: Window
) -> None:
    """Guards what is kept, its order and its positions, and rounding that would add up."""
    said, _, quiet = _alone(tuple(script), policy)
    wanted, wanted_quiet = _forgetfully(tuple(script), policy)
    assert said == wanted
    # Keys at the place where they were fed would show from the third digit on.
    assert quiet == pytest.approx(wanted_quiet, rel=1e-4)


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.integers(0, 5), st.integers(1, 14)),
        st.tuples(st.just("push"), st.integers(0, 5), st.integers(1, 14)),
        st.tuples(st.just("ask"), st.integers(0, 5), st.just(0)),
        st.tuples(st.just("step"), st.just(0), st.integers(1, 4)),
        st.tuples(st.just("evict"), st.integers(0, 5), st.just(0)),
        st.tuples(st.just("move"), st.integers(0, 5), st.integers(0, 1)),
        st.tuples(st.just("fork"), st.integers(0, 5), st.just(0)),
        st.tuples(st.just("open"), st.just(0), st.just(0)),
    ),
    min_size=5,
    max_size=25,
)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(
    OPERATIONS,
    st.sampled_from([WINDOW, RETRIEVE]),
    st.sampled_from(["copy", "rebuild"]),
    st.sampled_from([0.5, 8.0]),
)
def test_words_depend_on_a_sessions_inputs_and_its_policy_alone(
    operations: list[tuple[str, int, int]], policy: Window, spill: str, megabytes: float
) -> None:
    """Guards borders against chunks, company, eviction, snapshots and forks, all at once."""
    engine = talking_engine(megabytes, spill=spill, step_tokens=160)
    engine.open("s0", max_new_tokens=MAX_NEW, policy=policy)
    scripts: dict[str, list[int | str]] = {"s0": []}
    events: list[Event] = []
    inherited: dict[str, Said] = {}
    for number, (kind, which, amount) in enumerate(operations):
        name = list(scripts)[which % len(scripts)]
        if kind == "open" and len(scripts) < 4:
            fresh = f"s{len(scripts)}"
            engine.open(fresh, max_new_tokens=MAX_NEW, policy=policy)
            scripts[fresh] = []
        elif kind == "push" and len(scripts[name]) < 40:
            start = len(scripts[name]) % 40
            engine.push(name, FRAMES[start : start + amount])
            scripts[name] += range(start, start + amount)
        elif kind == "ask":
            engine.ask(name, f"q{number}", f"q{number}")
            scripts[name].append(f"q{number}")
        elif kind == "evict":
            engine.evict(name)
        elif kind == "step":
            for _ in range(amount):
                events += engine.step()
        elif kind == "move":
            events += drain(engine)
            snapshot = engine.snapshot(name, with_cache=bool(amount))
            engine.close(name)
            engine.restore(name, snapshot)
        elif kind == "fork" and len(scripts) < 4:
            events += drain(engine)
            fresh = f"s{len(scripts)}"
            engine.fork(name, fresh)
            scripts[fresh] = list(scripts[name])
            inherited[fresh] = [*inherited.get(name, []), *_transcripts(events).get(name, [])]
    events += drain(engine)
    found = _transcripts(events)
    for name, script in scripts.items():
        said, lengths, _ = _alone(tuple(script), policy)
        assert inherited.get(name, []) + found.get(name, []) == said, name
        if script:
            assert engine.lengths(name) == lengths
        engine.close(name)
    assert engine.memory.used_bytes == 0


@pytest.mark.slow
@pytest.mark.parametrize("policy", [Window(frames=20, block=4), Retrieve(frames=20, block=4)])
def test_while_nothing_has_left_every_policy_is_the_full_one_to_the_last_bit(
    policy: Policy,
) -> None:
    def told(policy: Policy) -> tuple[list[Event], bytes]:
        engine = talking_engine()
        engine.open("a", max_new_tokens=MAX_NEW, policy=policy)
        engine.push("a", FRAMES[:23])
        events = drain(engine)
        engine.ask("a", "q", "what now?")
        return events + drain(engine), engine.snapshot("a")

    (ours, data), (theirs, full) = told(policy), told(Full())
    assert ours == theirs
    # The keys and values are the last of a snapshot's bytes.
    assert data[-20_000:] == full[-20_000:]


@pytest.mark.slow
@pytest.mark.parametrize(
    "steps",
    [1, pytest.param(4, marks=pytest.mark.long), 9, pytest.param(13, marks=pytest.mark.long), 18],
)
@pytest.mark.parametrize("policy", [WINDOW, RETRIEVE])
def test_a_snapshot_amid_a_turn_goes_on_elsewhere(policy: Policy, steps: int) -> None:
    """Guards what an answer looks back at: it is fetched again where the answer goes on."""
    engine = talking_engine()
    engine.open("a", max_new_tokens=8, policy=policy)
    engine.push("a", FRAMES[:30])
    drain(engine)
    engine.ask("a", "q", "how did it begin?")
    for _ in range(steps):
        engine.step()
    data = engine.snapshot("a")
    other = talking_engine()
    other.restore("a", data)
    for one in (engine, other):
        one.push("a", FRAMES[30:45])
    # What still waits, such as the question itself, is not part of a snapshot.
    ours, theirs = drain(engine), drain(other)
    assert ours == theirs
    assert engine.lengths("a") == other.lengths("a")


@pytest.mark.slow
def test_an_evicted_answer_looks_back_at_the_same_blocks() -> None:
    answers = []
    for evicts in (False, True):
        engine = talking_engine()
        engine.open("a", max_new_tokens=12, policy=RETRIEVE)
        engine.push("a", FRAMES[:40])
        drain(engine)
        engine.ask("a", "q", "how did it begin?")
        events: list[Event] = []
        while engine.busy:
            events += engine.step()
            if evicts:
                engine.evict("a")
        answers.append([e.token for e in events if isinstance(e, Word)])
    assert answers[0] == answers[1]
    assert len(answers[0]) > 3


@pytest.mark.slow
def test_blocks_on_disk_are_those_in_memory_and_go_with_their_last_session(tmp_path: Path) -> None:
    answers = []
    for folder in (None, str(tmp_path)):
        engine = talking_engine()
        engine.open("a", max_new_tokens=8, policy=replace(RETRIEVE, folder=folder))
        engine.push("a", FRAMES[:40])
        drain(engine)
        engine.fork("a", "b")
        files = list(tmp_path.iterdir())
        engine.close("a")
        assert list(tmp_path.iterdir()) == files
        engine.ask("b", "q", "how did it begin?")
        answers.append([e.token for e in drain(engine) if isinstance(e, Word)])
        held = engine.offloaded_bytes("b")
        engine.close("b")
    assert answers[0] == answers[1]
    assert sum(file.stat().st_size for file in files if file.exists()) == 0
    assert len(files) > 8
    assert held > 0
    assert not list(tmp_path.iterdir())


def _long_stream(policy: Policy, n_frames: int) -> list[tuple[int, int, int, int]]:
    """Pages, longest layer, log entries and resident bytes, every 80 frames; asks now and then."""
    engine = talking_engine(4.0)
    engine.open("a", max_new_tokens=2, policy=policy)
    seen = []
    for start in range(0, n_frames, 40):
        engine.push("a", FRAMES[:40])
        drain(engine)
        if start % 80 == 0:
            engine.ask("a", "q", "what now?")
            assert not any(isinstance(e, Failed) for e in drain(engine))
            resident = int(Path("/proc/self/statm").read_text().split()[1])
            state = engine._sessions["a"]
            assert len(state.log.features) == sum(i == FRAME for i in state.log.ids)
            seen.append(
                (
                    engine.memory.used_bytes,
                    state.cursor.at,
                    len(state.log.ids),
                    resident * resource.getpagesize(),
                )
            )
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("n_frames", [800, pytest.param(1200, marks=pytest.mark.long)])
def test_an_endless_stream_runs_in_bounded_memory(n_frames: int) -> None:
    """Guards pages, positions, log and host memory; and that the full policy would not do."""
    policy = Window(frames=32, block=8, text=64)
    seen = _long_stream(policy, n_frames)
    bytes_, positions, entries, resident = zip(*seen, strict=True)
    assert max(bytes_[2:]) <= 1.4 * bytes_[1]
    # 40 frames of 10 tokens, a silence or some words each, kept text, a conversation.
    assert max(positions) <= 40 * 14 + 64 + 80
    assert max(entries) <= 40 * 5 + 64 + 80
    assert resident[-1] - resident[4] < 4 * 2**20
    seen = _long_stream(Retrieve(frames=32, block=8, text=64, blocks=2), n_frames // 2)
    bytes_, positions, entries, _ = zip(*seen, strict=True)
    assert max(bytes_[2:]) <= 1.4 * bytes_[1]
    assert max(positions) <= 40 * 14 + 64 + 80
    full = _long_stream(Full(), n_frames // 3)
    assert full[-1][0] > 3 * max(bytes_)


@pytest.mark.slow
def test_a_conversation_without_frames_is_bounded_as_well() -> None:
    engine = talking_engine()
    engine.open("a", max_new_tokens=4, policy=Window(frames=8, block=4, text=20))
    longest = []
    for number in range(60):
        engine.ask("a", "q", f"and what about number {number}?")
        drain(engine)
        longest.append(max(engine.lengths("a")))
    assert max(longest[30:]) <= max(longest[:30])


@pytest.mark.slow
def test_a_window_within_a_pool_that_just_holds_it_never_fails() -> None:
    """Guards the room that moving rows takes: none beside what it frees."""
    engine = talking_engine(0.12)
    engine.open("a", max_new_tokens=2, policy=WINDOW)
    for _ in range(5):
        engine.push("a", FRAMES)
        events = drain(engine)
        assert not any(isinstance(e, Failed) for e in events)
    assert sum(isinstance(e, FrameSeen) for e in events) == 60


@pytest.mark.slow
def test_held_bytes_are_those_of_the_rows_in_pages() -> None:
    engine = talking_engine()
    engine.open("a", max_new_tokens=MAX_NEW, policy=WINDOW)
    engine.push("a", FRAMES)
    drain(engine)
    rounding = 2 * sum(pool.page_bytes for pool in engine.memory.pools)
    held = engine.held_bytes("a")
    assert held <= engine.memory.used_bytes <= held + rounding
    full = PlainSession(*talking_model(), max_new_tokens=MAX_NEW)
    full.watch(FRAMES)
    assert held < 0.4 * full.cache.n_bytes


def test_a_window_of_odd_numbers_is_refused() -> None:
    with pytest.raises(ValueError, match="no multiple of blocks of 3"):
        Window(frames=8, block=3)
    with pytest.raises(ValueError, match="text must be at least 2"):
        Window(text=0)
    with pytest.raises(ValueError, match="blocks must be at least 1"):
        Retrieve(blocks=0)


@pytest.mark.slow
@pytest.mark.parametrize("pages", [0.5])
def test_forks_part_at_a_border_without_harming_each_other(pages: float) -> None:
    """Guards shared pages: one of two forks compacts while the other still reads them."""
    engine = talking_engine(pages)
    engine.open("a", max_new_tokens=MAX_NEW, policy=WINDOW)
    engine.push("a", FRAMES[:11])
    events = drain(engine)
    engine.fork("a", "b")
    engine.push("a", FRAMES[11:30])
    events += drain(engine)
    engine.push("b", FRAMES[30:50])
    events += drain(engine)
    found = _transcripts(events)
    assert found["a"] == _alone(tuple(range(30)), WINDOW)[0]
    other = _alone((*range(11), *range(30, 50)), WINDOW)[0]
    assert [turn for turn in found["a"] if int(turn[0]) < 11] + found["b"] == other


@pytest.mark.slow
def test_texts_that_are_kept_are_the_latest() -> None:
    model, layout = talking_model()
    assert torch.is_inference_mode_enabled() is False
    engine = talking_engine()
    engine.open("a", max_new_tokens=MAX_NEW, policy=WINDOW)
    for number in range(8):
        engine.ask("a", "q", f"q{number}")
        engine.push("a", FRAMES[5 * number : 5 * number + 5])
        drain(engine)
    log = engine._sessions["a"].log.ids
    opening = layout.opening(model.config.instruction)
    assert log[: len(opening)] == opening
    text = layout.decode([token for token in log if token >= 0])
    assert "q7" in text
    assert "q1" not in text
