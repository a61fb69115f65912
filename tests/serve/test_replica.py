"""The replica's own behaviour, without Ray around it: shared steps, summaries, failures."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from serve.engine_loop import ModelError
from serve.narrated import Narrated
from serve.replica import Replica
from tests.mod.engine.models import talking_model
from tests.mod.plain import PlainSession
from tests.mod.small import some_frames


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that makes its own summaries."""
    model, layout = talking_model()
    path = tmp_path_factory.mktemp("model")
    model.save_pretrained(path)
    layout.tokenizer.save_pretrained(path)
    return path


@pytest.fixture
def replica(folder: Path) -> Replica:
    return Replica(str(folder), None, 1)


def _frames(seed: int, n: int = 8) -> np.ndarray:
    return some_frames(n, seed=seed).numpy()


@pytest.mark.slow
def test_calls_at_the_same_time_equal_plain_sessions(replica: Replica) -> None:
    """Guards the shared engine: words, summaries and bytes are each call's own."""
    model, layout = talking_model()

    async def together() -> list[Narrated]:
        calls = [replica.narrate(_frames(seed), "Watch.", 0.0) for seed in range(3)]
        return list(await asyncio.gather(*calls))

    for seed, told in enumerate(asyncio.run(together())):
        session = PlainSession(model, layout, instruction="Watch.")
        outcomes = session.watch(torch.from_numpy(_frames(seed)))
        assert told.texts == [o.text for o in outcomes]
        assert told.salience == pytest.approx([1 - o.p_silence for o in outcomes], abs=1e-4)
        # A plain session feeds the end mark of its last narration at once.
        assert told.kv_bytes == pytest.approx(session.cache.n_bytes, abs=512)
        assert told.summary == session.ask(model.config.summary_request)
        assert told.model_s > 0


@pytest.mark.slow
def test_a_checkpoint_that_cannot_summarize_is_not_asked(tmp_path: Path) -> None:
    """Guards against made-up summaries: every word of a digest comes from the narrations."""
    model, layout = talking_model(summarizer="digest")
    model.save_pretrained(tmp_path)
    layout.tokenizer.save_pretrained(tmp_path)
    replica = Replica(str(tmp_path), None, 1)
    told = ["A red scene.", "Cut to a dark blue scene."]
    assert asyncio.run(replica.summarize(told)).startswith("It opens on a red scene and ends on a")


def test_no_frames_are_no_error(replica: Replica) -> None:
    """Guards against a segment without one good frame that fails its call."""
    told = asyncio.run(replica.narrate(_frames(0)[:0], "Watch.", 0.0))
    assert told.texts == []


@pytest.mark.slow
def test_a_call_the_model_cannot_take_fails_and_the_next_does_not(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against one bad call that takes a replica with it."""

    async def scenario() -> None:
        with pytest.raises(ValueError, match=r"frames must be"):
            await replica.narrate(np.zeros((2, 5, 5, 3), np.uint8), "Watch.", 0.0)
        with monkeypatch.context() as broken:
            broken.setattr(
                "mod.engine.runner.Runner._logits",
                lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("out of memory")),
            )
            with pytest.raises(ModelError, match="out of memory"):
                await replica.narrate(_frames(1), "Watch.", 0.0)
        told = await replica.narrate(_frames(1), "Watch.", 0.0)
        assert len(told.texts) == 8

    asyncio.run(scenario())


def test_who_leaves_while_a_stream_is_opened_leaves_none(replica: Replica) -> None:
    """Guards against replicas that seem to be at work for ever, and keep a stream's memory."""
    loop, held = replica._engine, threading.Event()

    async def leave() -> None:
        busy = asyncio.create_task(loop.use(lambda _: held.wait(10)))
        chat = asyncio.create_task(replica.chat("", "What now?", 4))
        await asyncio.sleep(0.05)
        chat.cancel()
        await asyncio.sleep(0)
        held.set()
        await busy
        with pytest.raises(asyncio.CancelledError):
            await chat
        await loop.use(lambda _: None)

    asyncio.run(leave())
    assert loop.bulk_calls == 0


def test_a_chat_says_how_long_its_answer_was(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards ``finish_reason``: spelled again, an answer may have fewer tokens than were said."""
    monkeypatch.setattr(type(replica._layout), "ends", frozenset())
    monkeypatch.setattr(type(replica._layout), "decode", lambda *_: "one")
    told = asyncio.run(replica.chat("", "What now?", 7))
    assert (told.completion_tokens, told.finish_reason) == (7, "length")
