"""Open models under the engine: the tokens of transformers' own ``generate``, however they run.

Guards against a family's frames, text or positions that are laid out otherwise than its processor
does, and against a trace that the engine's own questions leave in the stream.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from infra.openmodels import reference
from mod.checkpoint import OPEN, Checkpoint, find_checkpoint
from mod.decoder import RoutedDecoder
from mod.engine.cache import Memory
from mod.engine.engine import ContextError, Engine
from mod.engine.events import Event, Failed, FrameSeen, TurnEnded, Word
from mod.engine.policy import Retrieve, Window
from mod.families.known import FAMILIES
from mod.layout import Layout
from mod.loading import load_any

N, MOST = 7, 16
QUESTION = "What happens in the video?"


@pytest.fixture(scope="module", params=OPEN)
def checkpoint(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Checkpoint:
    folder = tmp_path_factory.mktemp(request.param)
    reference.make(request.param, folder)
    return find_checkpoint(str(folder))


@pytest.fixture(scope="module")
def loaded(checkpoint: Checkpoint) -> tuple[RoutedDecoder, Layout]:
    return load_any(checkpoint)


@pytest.fixture(scope="module")
def frames(checkpoint: Checkpoint) -> torch.Tensor:
    return torch.from_numpy(reference.frames_of(N, checkpoint.image_size, 3))


@pytest.fixture(scope="module")
def expected(checkpoint: Checkpoint, frames: torch.Tensor) -> list[int]:
    """What transformers generates, without the token that ends it."""
    return generated(checkpoint, frames, QUESTION)


def generated(checkpoint: Checkpoint, frames: torch.Tensor, question: str) -> list[int]:
    ids = reference.says(checkpoint.folder, frames.numpy(), question, checkpoint.fps, MOST)
    layout = load_any(checkpoint)[1]
    return ids[:-1] if ids[-1] in layout.ends else ids


Making = Callable[..., Engine]


@pytest.fixture
def engine(loaded: tuple[RoutedDecoder, Layout]) -> Making:
    model, layout = loaded

    def make(**options: object) -> Engine:
        memory = Memory(model.config, 2**26)
        return Engine(model, layout, memory, identity="tiny", **options)  # type: ignore[arg-type]

    return make


def run(engine: Engine) -> list[Event]:
    events = []
    while engine.busy:
        events += engine.step()
    failed = [event for event in events if isinstance(event, Failed)]
    assert not failed, failed
    return events


def answer(events: list[Event], session: str = "s") -> list[int]:
    return [e.token for e in events if isinstance(e, Word) and e.question and e.session == session]


def narrated(events: list[Event]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {
        e.frame: [] for e in events if isinstance(e, FrameSeen) and e.speaks
    }
    for event in events:
        if isinstance(event, Word) and event.frame is not None:
            found[event.frame].append(event.token)
    return found


def opened(engine: Engine, **options: object) -> Engine:
    engine.open("s", instruction="", max_new_tokens=MOST, frames=N, **options)  # type: ignore[arg-type]
    return engine


def test_every_open_model_type_is_known() -> None:
    assert set(OPEN) == set(FAMILIES)


@pytest.mark.slow
def test_the_stream_is_what_the_processor_writes(
    checkpoint: Checkpoint, loaded: tuple[RoutedDecoder, Layout], frames: torch.Tensor
) -> None:
    model, layout = loaded
    written = reference.prompt_ids(checkpoint.folder, frames.numpy(), QUESTION, checkpoint.fps)
    parts = [*layout.opening("")]
    ours: list[int] = []
    n_text = model.get_input_embeddings().num_embeddings
    per_step = model.config.frames_per_step
    for first in range(0, N, per_step):
        last = min(first + per_step, N) - 1
        parts += layout.before(first, last, checkpoint.fps, watching=first > 0, expected=N)
        ours += [*layout.ids(parts), *[-1] * model.config.tokens_per_frame]
        parts = [*layout.after()]
    ours += layout.ids([*parts, *layout.question(QUESTION, watching=True)])
    marks = {
        layout.tokenizer.convert_tokens_to_ids(mark)
        for mark in ("<image>", "<video>", "<|video_pad|>")
    }
    theirs = [-1 if token in marks else token for token in written]
    # A learned token without a place in the vocabulary is written as one of the video's.
    assert [-1 if token >= n_text else token for token in ours] == theirs


@pytest.mark.slow
def test_answers_are_those_of_generate(
    engine: Making, frames: torch.Tensor, expected: list[int]
) -> None:
    together = opened(engine())
    together.push("s", frames)
    together.ask("s", "q", QUESTION)
    events = run(together)
    assert answer(events) == expected
    assert 0 in narrated(events)


@pytest.mark.slow
@pytest.mark.parametrize("router", ["redundancy", "norm", "attention", "uniform", "random"])
def test_a_router_that_keeps_everything_changes_nothing(
    checkpoint: Checkpoint, frames: torch.Tensor, expected: list[int], router: str
) -> None:
    model, layout = load_any(checkpoint, 1.0, f"{router}:after-1")
    assert model.config.router == router
    routed = opened(Engine(model, layout, Memory(model.config, 2**26)))
    routed.push("s", frames)
    routed.ask("s", "q", QUESTION)
    assert answer(run(routed)) == expected


@pytest.mark.slow
def test_answers_do_not_depend_on_how_frames_come(
    engine: Making, frames: torch.Tensor, expected: list[int]
) -> None:
    alone = opened(engine())
    for frame in frames:
        alone.push("s", frame[None])
        run(alone)
    alone.ask("s", "q", QUESTION)
    assert answer(run(alone)) == expected


@pytest.mark.slow
def test_answers_do_not_depend_on_company(
    engine: Making, frames: torch.Tensor, expected: list[int]
) -> None:
    shared = opened(engine(step_tokens=64))
    others = ("a", "b", "c")
    for number, name in enumerate(others):
        shared.open(name, instruction="Be brief.", max_new_tokens=5)
        shared.push(name, frames[number:].flip(0))
    shared.push("s", frames)
    shared.ask("s", "q", QUESTION)
    assert answer(run(shared)) == expected


@pytest.mark.slow
@pytest.mark.parametrize("spill", ["copy", "rebuild"])
def test_a_cache_that_was_lost_amid_a_narration_comes_back(
    engine: Making, frames: torch.Tensor, expected: list[int], spill: str
) -> None:
    undisturbed = opened(engine())
    undisturbed.push("s", frames)
    undisturbed.ask("s", "q", QUESTION)
    wanted = narrated(run(undisturbed))
    lost = opened(engine(spill=spill))
    lost.push("s", frames)
    lost.ask("s", "q", QUESTION)
    events = []
    steps = 0
    while lost.busy:
        events += lost.step()
        steps += 1
        if steps % 3 == 0:
            lost.evict("s")
    assert answer(events) == expected
    assert narrated(events) == wanted


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 4, 9])
def test_a_snapshot_goes_on_elsewhere(
    engine: Making, frames: torch.Tensor, expected: list[int], steps: int
) -> None:
    here = opened(engine())
    here.push("s", frames)
    before = []
    for _ in range(steps):
        before += here.step()
    seen = sum(isinstance(event, FrameSeen) for event in before)
    there = engine()
    there.restore("s", here.snapshot("s", with_cache=steps != 4))
    there.push("s", frames[seen:])
    there.ask("s", "q", QUESTION)
    after = run(there)
    assert answer(after) == expected
    undisturbed = opened(engine())
    undisturbed.push("s", frames)
    whole = [e for e in run(undisturbed) if isinstance(e, FrameSeen | TurnEnded)]
    parts = [e for e in before + after if isinstance(e, FrameSeen | TurnEnded)]
    assert [e for e in parts if getattr(e, "question", None) is None] == whole


@pytest.mark.slow
def test_a_narration_is_what_generate_says_of_the_frames_so_far(
    checkpoint: Checkpoint,
    loaded: tuple[RoutedDecoder, Layout],
    engine: Making,
    frames: torch.Tensor,
) -> None:
    asking = loaded[1].asking
    assert asking is not None
    first = opened(engine())
    first.push("s", frames)
    last = max(narrated(run(first)))
    assert last > 0
    stream = engine()
    # It must know of as many frames as generate does.
    stream.open("s", instruction="", max_new_tokens=MOST, frames=last + 1)
    stream.push("s", frames[: last + 1])
    said = narrated(run(stream))[last]
    assert said == generated(checkpoint, frames[: last + 1], asking.question)


@pytest.mark.slow
def test_a_conversation_goes_on_with_frames(engine: Making, frames: torch.Tensor) -> None:
    """Answers stay in the stream, and frames after them are seen with what was said before."""
    stream = opened(engine())
    stream.push("s", frames[:3])
    stream.ask("s", "q1", QUESTION)
    stream.push("s", frames[3:])
    stream.ask("s", "q2", QUESTION)
    stream.ask("s", "q3", "And then?")
    ended = [e.question for e in run(stream) if isinstance(e, TurnEnded) and e.question]
    assert ended == ["q1", "q2", "q3"]
    forgetful = opened(engine())
    forgetful.push("s", frames[3:])
    forgetful.ask("s", "q2", QUESTION)
    assert answer(run(forgetful)) != answer(run(stream))


@pytest.mark.slow
@pytest.mark.parametrize("policy", [Window(frames=4, block=2, text=64), Retrieve(4, 2, 64)])
def test_a_window_bounds_the_stream(engine: Making, frames: torch.Tensor, policy: Window) -> None:
    """Times and marks of frames leave with them, and words do not depend on chunks."""
    said = []
    lengths = []
    for size in (1, 3):
        stream = opened(engine(), policy=policy)
        long = torch.cat([frames] * 4)
        events = []
        for start in range(0, len(long), size):
            stream.push("s", long[start : start + size])
            events += run(stream)
        stream.ask("s", "q", QUESTION)
        events += run(stream)
        said.append((narrated(events), answer(events)))
        lengths.append(max(stream.lengths("s")))
    assert said[0] == said[1]
    model = stream._model
    layout = stream._layout
    steps = (4 + 2) // model.config.frames_per_step
    window = steps * (model.config.tokens_per_frame + layout.beside_tokens) + 64
    opening = [*layout.opening(""), *layout.before(0, 0, 1.0, watching=False, expected=N)]
    question = layout.ids(layout.question(QUESTION, watching=True))
    most = window + len(layout.ids(opening)) + len(question) + MOST
    assert max(lengths) <= most
    # Of a stream that forgets nothing this would not hold.
    whole = opened(engine())
    whole.push("s", long)
    whole.ask("s", "q", QUESTION)
    run(whole)
    assert max(whole.lengths("s")) > most


def test_a_video_that_the_context_cannot_hold_is_refused(engine: Making) -> None:
    """Guards against words that are made of positions which the model has never learned."""
    too_long = engine()
    with pytest.raises(ContextError, match=r"more than the model's context of \d+ tokens"):
        too_long.open("s", frames=10**6)
    too_long.open("s", frames=10**6, policy=Window())
