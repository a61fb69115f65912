"""Live sessions of an open model: narrations that it is asked for survive the loss of owners."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from infra.openmodels import reference
from mod.checkpoint import find_checkpoint
from mod.engine.engine import Engine
from mod.engine.events import Event, FrameSeen
from mod.loading import load_any
from serve.live.engine_side import EngineSide
from serve.live.items import Frame, Input, Question, Refusal, SessionOptions
from tests.mod import online
from tests.mod.small import some_frames
from tests.serve.live import owners
from tests.serve.live.test_owner import Service

N = 12


@pytest.fixture(scope="module", params=["llava_onevision", "qwen3_vl"])
def frames(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[reference.Frames]:
    """Pictures for a small model of this family, which all owners serve meanwhile."""
    folder = tmp_path_factory.mktemp("model")
    reference.make(request.param, folder)
    checkpoint = find_checkpoint(str(folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owners, "talking_model", lambda: load_any(checkpoint))
        yield reference.frames_of(N, checkpoint.image_size, 5)


def _inputs(frames: reference.Frames) -> list[Input]:
    given: list[Input] = [Frame(pixels) for pixels in frames]
    given[7:7] = [Question("What happens in the video?")]
    return given


def _told(folder: Path, inputs: list[Input], memory: Any, lost_after: set[int]) -> list[Any]:
    async def work() -> list[Any]:
        options = SessionOptions(memory=memory, memory_frames=32, max_tokens=6)
        service = await Service(folder, options).start()
        for number, one in enumerate(inputs):
            await service.give([one], number + 1)
            if number in lost_after:
                await service.listen()
                await service.lose()
        await service.listen(until_quiet=True)
        return service.events

    return asyncio.run(work())


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["full", "window"])
def test_narrations_are_the_same_whoever_is_lost(
    tmp_path: Path, frames: reference.Frames, memory: str
) -> None:
    """Guards against an asking that is lost, or made twice, with the owner that made it."""
    inputs = _inputs(frames)
    undisturbed = _told(tmp_path / "plain", inputs, memory, set())
    narrated = [event for event in undisturbed if event[1] == "narration"]
    assert len(narrated) > 1
    assert any(event[1] == "response.done" for event in undisturbed)
    assert _told(tmp_path / "lost", inputs, memory, {0, 3, 7, 10}) == undisturbed


def _cancelled_at_once(folder: Path, frames: Any, patch: pytest.MonkeyPatch) -> list[Any]:
    """What a session tells whose first narration is cancelled before its first word, and whose
    owner is lost later; it may not be told otherwise then.
    """
    take, done = EngineSide.take, list[Future[Any]]()

    async def work() -> list[Any]:
        options = SessionOptions(memory="full", max_tokens=6)
        service, home = await Service(folder, options).start(), asyncio.get_running_loop()

        def taken(side: EngineSide, events: Sequence[Event], engine: Engine) -> None:
            take(side, events, engine)
            if not done and any(isinstance(e, FrameSeen) and e.speaks for e in events):
                cancelling = service.call(lambda owner, manifest: owner.cancel(manifest, None))
                done.append(asyncio.run_coroutine_threadsafe(cancelling, home))
                # Between two steps, and so before the first word; nothing else is asked for.
                deadline = time.monotonic() + 10
                while side._loop._actions.empty():
                    assert time.monotonic() < deadline
                    time.sleep(0.001)

        with patch.context() as patched:
            patched.setattr(EngineSide, "take", taken)
            await service.give([Frame(pixels) for pixels in frames])
            await service.listen(until_quiet=True)
        assert await asyncio.wrap_future(done[0])
        await service.lose()
        await service.listen(until_quiet=True)
        return service.events

    return [data for _, kind, data in asyncio.run(work()) if kind == "narration"]


def _is_cut_off(narrated: list[Any]) -> bool:
    said = [(bool(each["text"]), each["cancelled"]) for each in narrated]
    return said[:2] == [(False, True), (True, False)]


@pytest.mark.slow
def test_a_narration_cancelled_before_its_first_word_stays_so(
    tmp_path: Path, frames: reference.Frames, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against a narration that the next owner tells in full, and the numbers of all events
    after it."""
    assert _is_cut_off(_cancelled_at_once(tmp_path, frames, monkeypatch))


@pytest.mark.slow
def test_so_it_does_in_the_layout_of_videollm_online(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against the same where the model decides itself, and a prompt comes before words."""
    published = online.published()
    monkeypatch.setattr(owners, "talking_model", lambda: published)
    frames = some_frames(N, seed=1).numpy()
    assert _is_cut_off(_cancelled_at_once(tmp_path, frames, monkeypatch))


def test_more_frames_than_the_context_holds_are_refused(
    tmp_path: Path, frames: reference.Frames
) -> None:
    """Guards against a session that is opened and can only fail later."""

    async def work() -> Any:
        service = await Service(tmp_path, SessionOptions(memory="full", frames=10**6)).start()
        manifest = await service.directory.locate("s")
        return await service.owners[0].counts(manifest)

    refused = asyncio.run(work())
    assert isinstance(refused, Refusal)
    assert refused.code == "context_length_exceeded"
    assert refused.message is not None
    assert "tokens" in refused.message
