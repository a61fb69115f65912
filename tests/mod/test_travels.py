"""What belongs to a language model travels through assembling and training."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoTokenizer, GenerationConfig

from mod.assemble import Assembly, assemble
from mod.modeling import VideoLLMMoD
from mod.recipe import DataPart, ModelPart, TrainingPart, TrainRecipe
from mod.train import train
from tests.mod.assembly import TEMPLATE


@pytest.mark.slow
def test_generation_config_and_chat_template_outlast_training(
    assembly: Assembly, tmp_path: Path
) -> None:
    """Guards against a trained checkpoint that samples otherwise than its language model did."""
    assemble(assembly)
    again = VideoLLMMoD.from_pretrained(assembly.output)
    again.save_pretrained(tmp_path / "again")
    assert GenerationConfig.from_pretrained(tmp_path / "again").temperature == 0.6
    recipe = TrainRecipe(
        model=ModelPart(start=str(assembly.output), train="lora", lora_rank=2),
        data=DataPart(batch_frames=4, frames=[4], long_frames=4),
        training=TrainingPart(steps=1, see_steps=0, warmup=1),
    )
    train(recipe, tmp_path / "trained", workers=0)
    for folder in (assembly.lm, assembly.output, tmp_path / "trained"):
        generation = GenerationConfig.from_pretrained(folder)
        assert (generation.temperature, generation.do_sample) == (0.6, True), folder.name
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert tokenizer.chat_template == TEMPLATE
    before, after = (
        json.loads((folder / "config.json").read_text())
        for folder in (assembly.output, tmp_path / "trained")
    )
    assert {name for name in before if before[name] != after[name]} <= {"dtype"}


def test_a_generation_config_that_transformers_would_not_write_is_kept(
    assembly: Assembly, tmp_path: Path
) -> None:
    """Llama 2's has a temperature and does not sample."""
    lm = shutil.copytree(assembly.lm, tmp_path / "lm")
    (lm / "generation_config.json").write_text('{"do_sample": false, "temperature": 0.9}')
    assemble(replace(assembly, lm=lm))
    VideoLLMMoD.from_pretrained(assembly.output).save_pretrained(tmp_path / "again")
    for folder in (assembly.output, tmp_path / "again"):
        found = json.loads((folder / "generation_config.json").read_text())
        assert found == {"do_sample": False, "temperature": 0.9}
