"""Positions on several axes: where transformers lays tokens, wherever keys are moved to.

Guards against positions that are right while a stream only grows, and wrong once frames leave its
window, are looked back at, or come at another pace than the tests of the words use.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from infra.openmodels import reference
from mod.adopted import adopted_config
from mod.checkpoint import OPEN, find_checkpoint
from mod.decoder import RoutedDecoder
from mod.engine.cache import Memory, PagedCache
from mod.engine.engine import Engine
from mod.engine.log import StreamLog
from mod.engine.policy import Retrieve, Window
from mod.engine.runner import Fed
from mod.families.known import FAMILIES
from mod.layout import Layout
from mod.loading import load_any
from mod.places import FRAME, Cursor, Places

#: Text, frames, text, frames, text; where they are told apart by text, one frame each.
STRETCHES = (5, 4, 3, 7, 6)


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen3_vl"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp(request.param)
    reference.make(request.param, made)
    return made


@pytest.fixture(scope="module", params=OPEN)
def loaded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RoutedDecoder, Layout]:
    made = tmp_path_factory.mktemp(request.param)
    reference.make(request.param, made)
    return load_any(find_checkpoint(str(made)))


def _theirs(folder: Path, fps: float, stretches: list[int]) -> Tensor:
    """Where transformers lays text and frames that alternate, (axes, tokens)."""
    config = transformers.AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        model: Any = transformers.AutoModelForImageTextToText.from_config(config)
    adopted = adopted_config(folder)
    n = adopted.tokens_per_frame
    patches = int(n**0.5) * config.vision_config.spatial_merge_size
    kinds: list[int] = []
    for number, length in enumerate(stretches):
        kinds += [2] * length * n if number % 2 else [0] * length
    found, _ = model.model.get_rope_index(
        torch.zeros(1, len(kinds), dtype=torch.long),
        mm_token_type_ids=torch.tensor([kinds]),
        video_grid_thw=torch.tensor([[steps, patches, patches] for steps in stretches[1::2]]),
        second_per_grid_ts=torch.tensor([2 / fps] * len(stretches[1::2])),
    )
    places: Tensor = found[:, 0]
    return places


@pytest.mark.slow
@pytest.mark.parametrize("fps", [0.1, 0.5, 1.0, 2.0, 3.0, 7.3, 30.0])
def test_tokens_lie_where_transformers_lays_them(folder: Path, fps: float) -> None:
    config = adopted_config(folder)
    alone = config.base_config.model_type == "qwen3_vl"
    stretches = [5, 1, 2, 1, 1, 1, 3] if alone else list(STRETCHES)
    entries: list[int] = []
    for number, length in enumerate(stretches):
        entries += [FRAME if number % 2 else 7] * length
    family = FAMILIES[config.base_config.model_type]
    places = family.places(config.base_config, config.image_size, fps)
    ours = places.tokens(entries, Cursor())
    assert torch.equal(torch.tensor(ours), _theirs(folder, fps, stretches))
    # However it is divided.
    for cut in range(len(entries)):
        rest = places.tokens(entries[cut:], places.after(Cursor(), entries[:cut]))
        length = len(rest[0])
        assert rest == [axis[len(axis) - length :] for axis in ours]


def test_a_line_is_told_like_any_other_layout() -> None:
    line, spelled = Places.line(4), Places(((0, 1, 2, 3),), 4)
    entries = [1, FRAME, FRAME, 2, FRAME, 3]
    assert line.tokens(entries, Cursor(5)) == [list(range(5, 5 + 15))]
    assert line.after(Cursor(5), entries).at == 20
    assert spelled == line


def _watched(
    loaded: tuple[RoutedDecoder, Layout], policy: Window, frames: int
) -> tuple[Engine, Any]:
    """An engine whose one session let go of frames, and was asked and told in between."""
    model, layout = loaded
    engine = Engine(model, layout, Memory(model.config, 2**26))
    engine.open("s", instruction="", max_new_tokens=4, policy=policy)
    film = torch.from_numpy(reference.frames_of(frames, model.config.image_size, 3))
    for start in range(0, frames, 7):
        engine.push("s", film[start : start + 7])
        engine.ask("s", "q", "And then?")
        while engine.busy:
            engine.step()
    engine.bring_in("s")
    return engine, engine._sessions["s"]


def _first_keys(engine: Engine, log: StreamLog, places: Places, cursor: Cursor) -> Tensor:
    """Keys of the first layer, which depend on nothing but each token and its place."""
    cache = PagedCache(engine.memory)
    features = torch.stack(log.features) if log.features else None
    with torch.inference_mode():
        engine._runner._forward([Fed(log.ids, features, places, cursor)], [cache])
        keys = cache.read(0)[0].clone()
    cache.release()
    return keys


@pytest.mark.slow
@pytest.mark.parametrize("block", [2, 4])
def test_keys_that_stay_in_a_window_lie_where_a_new_stream_would_have_them(
    loaded: tuple[RoutedDecoder, Layout], block: int
) -> None:
    engine, session = _watched(loaded, Window(frames=8, block=block, text=12), 33)
    assert session.past.left
    assert session.cursor == session.places.after(Cursor(), session.log.ids)
    fresh = _first_keys(engine, session.log, session.places, Cursor())
    torch.testing.assert_close(session.cache.read(0)[0], fresh, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_what_is_looked_back_at_lies_right_before_the_stream(
    loaded: tuple[RoutedDecoder, Layout],
) -> None:
    engine, session = _watched(loaded, Retrieve(frames=8, block=4, text=12, blocks=2), 33)
    model = loaded[0]
    assert len(session.blocks) > 3
    engine.ask("s", "q", "What happens in the video?")
    engine.step()
    recall = session.recall
    assert recall is not None
    picked = [session.blocks[number] for number in recall.picked[0]]
    extents = [session.places.after(Cursor(), block.ids).at for block in picked]
    place, wanted = -sum(extents), []
    for number, (block, extent) in enumerate(zip(picked, extents, strict=True)):
        counts = [model.config.tokens_per_frame if i == FRAME else 1 for i in block.ids]
        shown = recall._shown[recall.picked[0][number]].repeat_interleave(torch.tensor(counts))
        n_frames = block.ids.count(FRAME)
        # Their pictures have left with them: their keys were taken where they lay.
        before = torch.tensor(session.places.tokens(block.ids, block.cursor))
        after = torch.tensor(session.places.tokens(block.ids, Cursor(place)))
        keys = _moved(model, block.layer(*engine.memory.place[0])[0], after - before)
        wanted.append(keys[shown])
        assert n_frames
        place += extent
    found = recall.aside.read(0)[0].transpose(0, 1)
    torch.testing.assert_close(found, torch.cat(wanted), atol=1e-4, rtol=1e-4)


def _moved(model: RoutedDecoder, keys: Tensor, by: Tensor) -> Tensor:
    """``keys`` (tokens, heads, dim) rotated by (axes, tokens), by the formula of RoPE alone."""
    emb = model.decoder.rotary_emb
    cos, sin = emb(keys, by if len(by) == 1 else by[:, None])
    half = keys.shape[-1] // 2
    turned = torch.cat([-keys[..., half:], keys[..., :half]], dim=-1)
    out: Tensor = keys * cos[0][:, None] + turned * sin[0][:, None]
    return out
