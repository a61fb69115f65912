"""Weights in fewer bits: the words of ``generate`` with the same weights, and less memory.

Guards against maps that are left whole, parts that are not to lose precision and do, and a
compiler that has to be there.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from optimum.quanto import QLinear
from optimum.quanto.library.extensions.extension import get_extension
from optimum.quanto.tensor.packed import PackedTensor
from torch import nn

from infra.openmodels import reference
from longreel.errors import UsageError
from mod.checkpoint import OPEN, TINY, find_checkpoint
from mod.engine.viewer import Viewer
from mod.loading import load, load_any
from mod.quantized import check_quantize, unpack
from mod.weights import weight_bytes
from tests.mod.small import some_frames

QUESTION = "What happens in the video?"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["int8", "int4"])
@pytest.mark.parametrize("family", OPEN)
def test_words_are_those_of_generate(tmp_path: Path, family: str, kind: str) -> None:
    reference.make(family, tmp_path)
    checkpoint = find_checkpoint(str(tmp_path))
    model, layout = load_any(checkpoint, quantize=kind)
    kinds = {
        name: isinstance(part, QLinear)
        for name, part in model.named_modules()
        if isinstance(part, nn.Linear)
    }
    inside = {name for name in kinds if "visi" not in name and "visual" not in name}
    assert {n for n, q in kinds.items() if q} == {n for n in inside if ".layers." in n}
    frames = reference.frames_of(5, checkpoint.image_size, 3)
    viewer = Viewer(model, layout, instruction="", frames=5, max_new_tokens=16)
    viewer.watch(torch.from_numpy(frames))
    ids = reference.says(tmp_path, frames, QUESTION, checkpoint.fps, 16, kind)
    assert viewer.ask(QUESTION) == layout.decode(ids)
    assert get_extension("quanto_cpp")._lib is None, "a compiler was needed"


@pytest.mark.parametrize("bits", [2, 4])
def test_what_was_packed_is_unpacked(bits: int) -> None:
    """Guards against weights in each other's place."""
    small = torch.arange(40, dtype=torch.uint8).view(8, 5) % 2**bits
    assert torch.equal(unpack(PackedTensor.pack(small, bits)._data, bits), small)


@pytest.mark.slow
def test_the_bundled_model_narrates_in_eight_bits() -> None:
    checkpoint = find_checkpoint(TINY)
    whole, layout = load(checkpoint)
    small, _ = load(checkpoint, quantize="int8")
    frames = some_frames(6, size=96)
    said = [
        [outcome.p_silence for outcome in Viewer(model, layout).watch(frames)]
        for model in (whole, small)
    ]
    assert said[0] != said[1]
    assert said[0] == pytest.approx(said[1], abs=0.1)


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_memory_is_told_from_the_headers(tmp_path: Path, kind: str) -> None:
    reference.make("llava_onevision", tmp_path)
    told = weight_bytes(tmp_path, 4, kind)
    assert told < weight_bytes(tmp_path, 4)
    model, _ = load_any(find_checkpoint(str(tmp_path)), quantize=kind)
    maps = [part for part in model.modules() if isinstance(part, QLinear)]
    elements = sum(part.weight.numel() for part in maps)
    rest = sum(
        tensor.numel() * 4
        for name, tensor in model.named_parameters()
        if not isinstance(model.get_submodule(name.rpartition(".")[0]), QLinear)
    )
    biases = sum(part.bias.numel() * 4 for part in maps if part.bias is not None)
    wanted = rest + biases + elements * (1 if kind == "int8" else 0.5)
    assert told == pytest.approx(wanted, rel=0.05)


def test_what_cannot_be_had_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="int8, int4, not 'int2'"):
        load(find_checkpoint(TINY), quantize="int2")
    monkeypatch.setattr("mod.quantized.find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"longreel\[quantize\]"):
        check_quantize("int8")
