"""Models with random weights, made where they run and never on a disk: arithmetic does not depend
on their values."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import torch
from transformers import AutoModelForImageTextToText

from infra.openmodels.published import Published
from mod.adopted import AdoptedModel, adopted_config, adopted_layout
from mod.choice import RouterChoice
from mod.config import AdoptedConfig
from mod.families.chat import ChatLayout
from mod.loading import route
from mod.routers import Router

_Made = TypeVar("_Made")


def on_device(make: Callable[[], _Made], device: torch.device, dtype: torch.dtype) -> _Made:
    """What ``make`` makes, its weights of ``dtype`` and drawn on ``device``: always the same."""
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            return make()
    finally:
        torch.set_default_dtype(before)


def served(
    published: Published, config: Any, router: Router, keep_ratio: float
) -> tuple[AdoptedConfig, ChatLayout]:
    """Config and layout of an open model, read from files as those of any checkpoint are.

    Args:
        config: as ``published.config`` gives it, of whatever size.
    """
    with TemporaryDirectory(prefix="longreel-bench-") as name:
        folder = Path(name)
        published.write(folder, config)
        adopted = adopted_config(folder)
        route(adopted, keep_ratio, RouterChoice(router))
        return adopted, adopted_layout(folder, adopted)


def open_model(config: AdoptedConfig, device: torch.device, dtype: torch.dtype) -> AdoptedModel:
    """An open model with random weights, in eval mode."""
    base = on_device(
        lambda: AutoModelForImageTextToText.from_config(config.base_config, dtype=dtype),
        device,
        dtype,
    )
    return AdoptedModel(config, base).eval().to(device)


def dense_twin(model: AdoptedModel) -> AdoptedModel:
    """The same weights in the same memory, routing nothing."""
    config = deepcopy(model.config)
    route(config, 1.0, RouterChoice("none"))
    return AdoptedModel(config, model.base).eval()
