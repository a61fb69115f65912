"""A question about what left the window: retrieval answers it, a window cannot."""

from __future__ import annotations

from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mod.decoder import Stream
from mod.engine.cache import Memory
from mod.engine.engine import Engine
from mod.engine.events import Failed, Word
from mod.engine.log import FRAME
from mod.engine.policy import Full, Policy, Retrieve, Window
from mod.engine.recall import best_blocks
from mod.layout import StreamLayout, train_tokenizer
from mod.modeling import VideoLLMMoD
from tests.mod.engine.forgetful import turned
from tests.mod.engine.models import CORPUS
from tests.mod.small import small_model

COLOURS = ((230, 30, 30), (30, 200, 40), (40, 50, 230), (220, 200, 30))
N_FRAMES = 24


def _film(colour: int, seed: int, n_frames: int) -> Tensor:
    """Grey noise, but one of the first three frames has a colour."""
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randint(90, 140, (n_frames, 48, 48, 1), generator=generator)
    film = frames.expand(-1, -1, -1, 3).clone().to(torch.uint8)
    place = int(torch.randint(0, 3, (1,), generator=generator))
    film[place] = torch.tensor(COLOURS[colour], dtype=torch.uint8)
    return film


def _loss(
    model: VideoLLMMoD, layout: StreamLayout, n_frames: int, seed: int, batch: int = 8
) -> tuple[Tensor, float]:
    """Of the first word of the answer, over streams that end in the question; and its accuracy."""
    colours = [(seed + i) % len(COLOURS) for i in range(batch)]
    films = torch.cat([_film(c, seed * batch + i, n_frames) for i, c in enumerate(colours)])
    n = model.config.tokens_per_frame
    features = model.encode_frames(films, films).view(batch, n_frames, n, -1)
    text = model.embed_text
    opening = text(torch.tensor(layout.opening(""))).expand(batch, -1, -1)
    silence = text(torch.tensor([layout.silence])).expand(batch, n_frames, 1, -1)
    seen = torch.cat([features, silence], dim=2).flatten(1, 2)
    question = text(torch.tensor(layout.question("A"))).expand(batch, -1, -1)
    whole = torch.cat([opening, seen, question], dim=1)
    length = whole.shape[1]
    starts = opening.shape[1] + torch.arange(n_frames) * (n + 1)
    stream = Stream(
        whole.flatten(0, 1),
        torch.arange(length).repeat(batch),
        (torch.arange(batch)[:, None] * length + starts).flatten(),
        [length] * batch,
    )
    hidden = model(stream).view(batch, length, -1)
    logits = model.logits(hidden[:, -1])
    answers = torch.tensor([_answer(layout, c) for c in colours])
    return F.cross_entropy(logits, answers), float((logits.argmax(-1) == answers).float().mean())


def _answer(layout: StreamLayout, colour: int) -> int:
    """The token that names a colour."""
    return layout.end + 10 + colour


def _untrained() -> tuple[VideoLLMMoD, StreamLayout]:
    model = small_model(router="bounded", seed=1)
    return model, StreamLayout.of(train_tokenizer(CORPUS, model.config, 400), model.config)


@cache
def _trained() -> tuple[VideoLLMMoD, StreamLayout]:
    """A model that has learned to name the one colour it saw."""
    model, layout = _untrained()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    right = 0.0
    for step in range(1000):
        # Short streams first: what to look for is learned before how far away it may lie.
        n_frames = 4 + min(step // 8, N_FRAMES - 4)
        loss, accuracy = _loss(model, layout, n_frames, step)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        right = 0.95 * right + 0.05 * accuracy
        if right > 0.97 and n_frames == N_FRAMES:
            return model.eval(), layout
    raise AssertionError(f"the model names {right:.2f} of the colours")


def _first_logits(policy: Policy, colour: int, seed: int) -> tuple[int, Tensor]:
    """The first word of the answer at the stream's end, and the log-probabilities behind it."""
    model, layout = _trained()
    memory = Memory(model.config, 4 * 2**20, page_size=8)
    engine = Engine(model, layout, memory)
    engine.open("a", instruction="", threshold=0.0, max_new_tokens=1, policy=policy)
    engine.push("a", _film(colour, seed, N_FRAMES))
    while engine.busy:
        engine.step()
    engine.ask("a", "q", "A")
    told: list[Tensor] = []
    hook = model.language_model.lm_head.register_forward_hook(lambda _m, _i, out: told.append(out))
    words = [event for event in engine.step() if isinstance(event, Word)]
    hook.remove()
    return words[0].token, told[0][-1].log_softmax(-1)


@pytest.mark.slow
@pytest.mark.long
def test_retrieval_answers_about_the_beginning_where_a_window_cannot() -> None:
    """Guards selection, positions and rotation of what is fetched: 24 films, 4 colours."""
    _, layout = _trained()
    window = Window(frames=8, block=4, text=16)
    retrieve = Retrieve(frames=8, block=4, text=16, blocks=1)
    right = {"full": 0, "window": 0, "retrieve": 0}
    apart = {"window": 0.0, "retrieve": 0.0}
    for number in range(24):
        colour = number % len(COLOURS)
        full, wanted = _first_logits(Full(), colour, 90_000 + number)
        right["full"] += full == _answer(layout, colour)
        for name, policy in (("window", window), ("retrieve", retrieve)):
            word, found = _first_logits(policy, colour, 90_000 + number)
            right[name] += word == _answer(layout, colour)
            apart[name] += float((wanted.exp() * (wanted - found)).sum())
    assert right["full"] == 24
    assert right["retrieve"] >= 23
    assert right["window"] <= 18
    assert apart["retrieve"] < 0.2 * apart["window"]


def test_what_is_retrieved_leaves_no_pages_behind() -> None:
    """Guards against memory that shrinks with every question."""
    model, layout = _untrained()
    engine = Engine(model, layout, Memory(model.config, 4 * 2**20, page_size=8))
    policy = Retrieve(frames=8, block=4, text=16, blocks=2)
    engine.open("a", instruction="", max_new_tokens=1, policy=policy)
    engine.push("a", _film(0, 5, N_FRAMES))
    while engine.busy:
        engine.step()
    idle = engine.memory.used_bytes
    engine.ask("a", "q", "A")
    engine.step()
    assert engine.memory.used_bytes > 1.2 * idle
    engine.cancel("a")
    assert engine.memory.used_bytes <= 1.1 * idle
    assert not any(isinstance(e, Failed) for e in engine.step())
    engine.close("a")
    assert engine.memory.used_bytes == 0


def test_retrieved_rows_lie_side_by_side_right_before_the_stream() -> None:
    """Guards their rotation, by a formula of its own, and words that are still in the window."""
    model, layout = _untrained()
    engine = Engine(model, layout, Memory(model.config, 4 * 2**20, page_size=8))
    policy = Retrieve(frames=8, block=4, text=16, blocks=2)
    engine.open("a", instruction="", max_new_tokens=4, policy=policy)
    film = _film(0, 5, N_FRAMES)
    for start in (0, 4, 8, 16):
        engine.push("a", film[start : start + 4])
        engine.ask("a", "q", "A")
        while engine.busy:
            engine.step()
    engine.ask("a", "q", "A")
    engine.step()
    session = engine._sessions["a"]
    recall = session.recall
    assert recall is not None
    assert session.past.words > 0
    said = [t for b in session.blocks for t in b.ids if t not in (FRAME, layout.silence)]
    log = session.log.ids[session.past.sinks :][: session.past.words]
    assert said[len(said) - len(log) :] == log
    n = model.config.tokens_per_frame
    for layer, (c, index) in engine.memory.place.items():
        place = 0
        keys: list[Tensor] = []
        values: list[Tensor] = []
        for number in reversed(recall.picked[layer]):
            block = session.blocks[number]
            place -= sum(n if token == FRAME else 1 for token in block.ids)
            later = [t for b in session.blocks[number + 1 :] for t in b.ids]
            words = len(log) - sum(t not in (FRAME, layout.silence) for t in later)
            rows = []
            for token in reversed(block.ids):
                hidden = token not in (FRAME, layout.silence) and words > 0
                words -= hidden
                size = engine.memory.classes[c].tokens_per_frame if token == FRAME else 1
                rows += [not hidden] * size
            part = block.layer(c, index)[:, torch.tensor(rows[::-1])]
            by = torch.full((part.shape[1],), place - block.cursor.at)
            keys.insert(0, turned(part[0].transpose(0, 1), by))
            values.insert(0, part[1].transpose(0, 1))
        found = recall.aside.read(layer)
        torch.testing.assert_close(found[0], torch.cat(keys, dim=1), atol=1e-4, rtol=1e-4)
        assert torch.equal(found[1], torch.cat(values, dim=1))


def test_the_blocks_that_agree_best_are_picked_in_order_of_time() -> None:
    """Guards against an answer that looks back at the wrong stretch, or sees it out of order."""
    means = torch.zeros(5, 2, 3)
    means[1, 0, 0], means[3, 1, 2], means[4, 0, 1] = 2.0, 3.0, 9.0
    queries = torch.zeros(4, 2, 3)
    queries[0, :, 0] = queries[3, :, 2] = 1.0  # heads 0 and 1 read key head 0, 2 and 3 head 1
    assert best_blocks(queries, means, 2) == [1, 3]
    assert best_blocks(queries, means, 1) == [3]
    assert best_blocks(queries, means, 9) == [0, 1, 2, 3, 4]
    with pytest.raises(RuntimeError):
        best_blocks(queries[:3], means, 1)
