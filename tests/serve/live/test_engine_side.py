"""A live session's half in the engine, on engines of small models."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from transformers import SmolLM3Config

from mod.config import VideoLLMMoDConfig
from mod.engine.cache import Memory
from mod.engine.engine import Engine
from mod.engine.snapshot import SnapshotError
from mod.modeling import VideoLLMMoD
from serve.engine_loop import EngineLoop
from serve.live.engine_side import EngineSide
from serve.live.items import SessionError, SessionOptions
from tests.mod.small import TEXT, small_config, small_layout


@pytest.fixture(scope="module")
def partly_rotary() -> Engine:
    """Of a model some of whose layers have no rotary positions."""
    config = small_config().to_dict()
    config["text_config"] = SmolLM3Config(**TEXT, pad_token_id=0)
    model = VideoLLMMoD(VideoLLMMoDConfig(**config)).eval()
    return Engine(model, small_layout(model.config), Memory(model.config, 2**20))


def _opened(engine: Engine, memory: Any, state: bytes | None = None) -> None:
    async def work() -> None:
        def heard(_: Any) -> None:
            raise AssertionError("nothing happens in it")

        side = EngineSide(EngineLoop(engine), f"live-{memory}-1", "live", heard, heard)
        await side.open(SessionOptions(memory=memory), state)
        await side.close()

    asyncio.run(work())


@pytest.mark.parametrize("memory", ["window", "retrieve"])
def test_a_memory_that_the_model_cannot_have_is_refused(partly_rotary: Engine, memory: str) -> None:
    """Guards against a session that nobody can take in: whoever opens it would wait for a minute,
    be told that no replica took it, and leave it behind."""
    with pytest.raises(SessionError, match="memory: keys of 'smollm3' models") as refused:
        _opened(partly_rotary, memory)
    assert refused.value.code == "invalid_value"
    _opened(partly_rotary, "full")


def test_a_snapshot_that_does_not_fit_is_not_the_clients_fault(partly_rotary: Engine) -> None:
    """Guards against options that are called wrong where it is the snapshot that is."""
    with pytest.raises(SnapshotError):
        _opened(partly_rotary, "full", b"nothing")
