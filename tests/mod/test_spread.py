"""A model spread over several devices: the words of one that is not.

There is one device here. Layers are laid apart on what torch calls ``cpu`` and ``cpu:0``, so that
each has pools of its own; and some are brought in by accelerate's hooks, as on several GPUs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from transformers import AutoModelForImageTextToText

from infra.openmodels import reference
from mod.adopted import AdoptedModel, adopted_config
from mod.checkpoint import TINY, find_checkpoint
from mod.decoder import RoutedDecoder
from mod.engine.cache import Memory
from mod.engine.engine import Engine
from mod.engine.events import FrameSeen, Word
from mod.engine.policy import Retrieve, Window
from mod.layout import Layout
from mod.loading import load_any, spread

APART = (torch.device("cpu"), torch.device("cpu", 0))


MODELS = ("videollm_mod", "qwen3_vl", "llava_onevision")
POLICIES = (None, Window(8, 4, 64), Retrieve(8, 4, 64))
ROUTERS = (None, "redundancy:after-1", "attention:after-1")
#: A Latin square has every two of them together; ``make test-long`` has every three.
CASES = [
    pytest.param(
        model,
        POLICIES[i],
        ROUTERS[j],
        marks=() if (i + j + k) % 3 == 0 else pytest.mark.long,
        id=f"{model}-{ROUTERS[j]}-{type(POLICIES[i]).__name__}",
    )
    for k, model in enumerate(MODELS)
    for i in range(3)
    for j in range(3)
]


@pytest.fixture(scope="module")
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    if request.param == "videollm_mod":
        return TINY
    made = tmp_path_factory.mktemp(request.param)
    reference.make(request.param, made)
    return str(made)


def _laid_apart(model: RoutedDecoder) -> RoutedDecoder:
    n_layers = len(model.decoder.layers)
    model.layer_devices = [APART[2 * layer // n_layers] for layer in range(n_layers)]
    return model


def _told(model: RoutedDecoder, layout: Layout, **options: Any) -> tuple[Engine, list[Any]]:
    memory = Memory(model.config, 2**26, devices=model.layer_devices)
    engine = Engine(model, layout, memory, identity="same")
    engine.open("s", max_new_tokens=6, **options)
    side = model.config.image_size
    film = torch.from_numpy(reference.frames_of(24, side, 3))
    events = []
    for start in range(0, 24, 8):
        engine.push("s", film[start : start + 8])
        engine.ask("s", "q", "How many cuts?")
        while engine.busy:
            events += engine.step()
            if engine.steps % 5 == 0:
                engine.evict("s")
    kept = [e for e in events if isinstance(e, Word)]
    seen = [(e.frame, e.speaks) for e in events if isinstance(e, FrameSeen)]
    return engine, [kept, seen]


@pytest.mark.slow
@pytest.mark.parametrize(("folder", "policy", "router"), CASES, indirect=["folder"])
def test_words_do_not_depend_on_where_layers_lie(
    folder: str, policy: Window | None, router: str | None
) -> None:
    """Guards against keys or places that are read on another device than they were written on."""
    options = {"keep_ratio": 0.5, "router": router} if router else {}
    checkpoint = find_checkpoint(folder)
    together, layout = load_any(checkpoint, **options)  # type: ignore[arg-type]
    engine, wanted = _told(together, layout, policy=policy)
    apart, found = _told(_laid_apart(together), layout, policy=policy)
    assert found == wanted
    assert len(apart.memory.classes) > len(engine.memory.classes)
    assert engine.lengths("s") == apart.lengths("s")
    data = apart.snapshot("s")
    apart.close("s")
    apart.restore("s", data)
    assert apart.lengths("s") == engine.lengths("s")


@pytest.mark.slow
def test_layers_that_hooks_bring_in_say_the_same(tmp_path: Path) -> None:
    """Guards the calls of layers one by one, which hooks have to see as transformers' own."""
    made, aside = tmp_path / "made", tmp_path / "aside"
    made.mkdir()
    reference.make("qwen3_vl", made)
    checkpoint = find_checkpoint(str(made))
    whole, layout = load_any(checkpoint)
    text = "model.language_model"
    parts = ["model.visual", "lm_head", *(f"{text}.{n}" for n in ("embed_tokens", "norm"))]
    places = dict.fromkeys([*parts, f"{text}.rotary_emb"], "cpu")
    places |= {f"{text}.layers.{n}": "disk" if n % 2 else "cpu" for n in range(4)}
    base = AutoModelForImageTextToText.from_pretrained(
        made, device_map=places, offload_folder=aside, dtype=torch.float32
    )
    layer: Any = base.model.language_model.layers[1]
    assert next(layer.parameters()).device.type == "meta"
    hooked = AdoptedModel(adopted_config(made), base).eval()
    assert _told(hooked, layout)[1] == _told(whole, layout)[1]


def test_routers_are_no_longer_moved_by_hooks() -> None:
    """Guards routers, which are asked by more than their forward, against a hook's own device."""
    model, _ = load_any(find_checkpoint(TINY))
    for router in model.routers.values():
        add_hook_to_module(router, AlignDevicesHook(execution_device="cpu"))
    laid = spread(model)
    assert not any(hasattr(router, "_hf_hook") for router in laid.routers.values())
    assert laid.layer_devices == [torch.device("cpu")] * len(model.decoder.layers)


def test_a_device_that_is_named_holds_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards a worker among others on one node: a model spread over the GPUs of its peers."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    model, _ = load_any(find_checkpoint(TINY), device=torch.device("cpu"))
    assert model.layer_devices is None
    assert {(p.device.type, p.dtype) for p in model.parameters()} == {("cpu", torch.float32)}
