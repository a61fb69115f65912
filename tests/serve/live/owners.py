"""Owners on real engines of a small talking model, without Ray."""

from __future__ import annotations

from typing import Any

from actors.directory import Directory
from actors.statestore import StateStore
from mod.engine.cache import Memory
from mod.engine.engine import Engine
from serve.engine_loop import EngineLoop
from serve.live.owner import Owner, OwnerSettings
from tests.mod.engine.models import talking_model


def make_engine() -> Engine:
    """An engine of the small talking model."""
    model, layout = talking_model()
    return Engine(model, layout, Memory(model.config, 8 * 2**20, page_size=8))


def make_owner(
    name: str, store: StateStore | None, directory: Directory | None, **fields: Any
) -> Owner:
    """An owner on replica ``name``; without a store it has chats alone."""
    model, layout = talking_model()
    loop = EngineLoop(make_engine())
    side = model.config.image_size
    settings = OwnerSettings(name, 2.0, side, layout.decode, lambda: (1, 1), **fields)
    return Owner(loop, settings, store, directory)
