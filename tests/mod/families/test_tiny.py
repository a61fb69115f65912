"""The tiny checkpoints: whole, read back by transformers, and with answers that tell things apart.

Guards against an answer that is the same for every video, or one token over and over: tests that
compare answers with it would pass for an engine that shows no frames.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from infra.openmodels import reference

N, QUESTION, FPS = 4, "What happens?", 2.0
#: Sides of pictures, and tokens for four of them: a token ends the video of LLaVA-OneVision, and
#: the Qwens make one of two frames.
SIZES = {
    "llava_onevision": (56, N * 4 + 1),
    "smolvlm": (56, N * 4),
    "idefics3": (56, N * 4),
    "qwen2_5_vl": (84, N // 2 * 9),
    "qwen3_vl": (96, N // 2 * 9),
}


@pytest.fixture(scope="module", params=SIZES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp(family)
    reference.make(family, made)
    return made


@pytest.fixture(scope="module")
def frames(family: str) -> reference.Frames:
    return reference.frames_of(N, SIZES[family][0], 0)


@pytest.fixture(scope="module")
def answer(folder: Path, frames: reference.Frames) -> list[int]:
    return reference.says(folder, frames, QUESTION, FPS)


def placeholders(folder: Path, frames: reference.Frames) -> int:
    config = transformers.AutoConfig.from_pretrained(folder)
    name = "video_token_id" if hasattr(config, "video_token_id") else "image_token_id"
    return reference.prompt_ids(folder, frames, QUESTION, FPS).count(getattr(config, name))


@pytest.mark.slow
def test_a_checkpoint_is_small_and_read_back_as_what_it_is(family: str, folder: Path) -> None:
    written = {file.name for file in folder.iterdir()}
    assert written >= {
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "processor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert sum(file.stat().st_size for file in folder.iterdir()) < 2e6
    model, report = transformers.AutoModelForImageTextToText.from_pretrained(
        folder, output_loading_info=True
    )
    assert not any(report.values())
    assert (model.config.model_type, model.dtype) == (family, torch.float32)
    processor = json.loads((folder / "processor_config.json").read_text())["processor_class"]
    name = type(model).__name__.removesuffix("ForConditionalGeneration")
    assert processor == f"{name}Processor"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) < model.get_input_embeddings().num_embeddings < 1500


def test_it_is_written_the_same_every_time(family: str, folder: Path, tmp_path: Path) -> None:
    reference.make(family, tmp_path)
    for file in folder.iterdir():
        assert (tmp_path / file.name).read_bytes() == file.read_bytes(), file.name


@pytest.mark.slow
def test_answers_tell_videos_questions_and_orders_apart(
    folder: Path, frames: reference.Frames, answer: list[int]
) -> None:
    assert reference.says(folder, frames, QUESTION, FPS) == answer
    assert len(set(answer)) > len(answer) / 3
    others = [
        reference.says(folder, reference.frames_of(N, frames.shape[1], 1), QUESTION, FPS),
        reference.says(folder, frames[::-1].copy(), QUESTION, FPS),
        reference.says(folder, frames, "And then?", FPS),
    ]
    assert len({tuple(said) for said in [answer, *others]}) == 4


def test_answers_are_text(folder: Path, answer: list[int]) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert tokenizer.decode(answer, skip_special_tokens=True).isascii()


def test_a_prompt_has_a_place_for_each_feature(
    family: str, folder: Path, frames: reference.Frames
) -> None:
    assert placeholders(folder, frames) == SIZES[family][1]
    assert reference.side_of(folder) == SIZES[family][0]


@pytest.mark.slow
def test_an_odd_grid_is_pooled_to_its_half_rounded_up(tmp_path: Path) -> None:
    reference.make("llava_onevision", tmp_path, image_size=76)
    assert reference.side_of(tmp_path) == 76
    frames = reference.frames_of(N, 76, 0)
    assert placeholders(tmp_path, frames) == N * 9 + 1
    assert len(set(reference.says(tmp_path, frames, QUESTION, FPS))) > 8


def test_frames_change_and_are_chosen_by_the_seed() -> None:
    frames = reference.frames_of(5, 56, 0)
    assert frames.shape == (5, 56, 56, 3)
    assert frames.dtype == np.uint8
    changed = (frames[1:] != frames[:-1]).any(-1).mean((1, 2))
    assert (changed > 0).all()
    assert (changed < 1).all()
    assert np.array_equal(reference.frames_of(3, 56, 0), frames[:3])
    assert not np.array_equal(reference.frames_of(5, 56, 1), frames)
