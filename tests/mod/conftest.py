"""One thread, and the parts that checkpoints are assembled from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import SiglipConfig, SiglipModel, SiglipTextConfig

from mod.assemble import Assembly
from tests.mod.assembly import make_lm, make_lora
from tests.mod.small import FAMILIES, small_config

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of every part: ``vision``, ``siglip``, each family, ``lora``, ``plain-lora``."""
    root = tmp_path_factory.mktemp("parts")
    vision_config = small_config().vision_config
    torch.manual_seed(0)
    siglip = SiglipModel(
        SiglipConfig(
            vision_config=vision_config.to_dict(),
            text_config=SiglipTextConfig(
                vocab_size=20,
                hidden_size=24,
                intermediate_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
            ).to_dict(),
        )
    )
    siglip.save_pretrained(root / "siglip")
    siglip.vision_model.save_pretrained(root / "vision")
    for family in FAMILIES:
        make_lm(root / family, small_config(family).text_config)
    make_lora(root / "lora", root / "llama")
    make_lora(root / "plain-lora", root / "llama", None)
    return root


@pytest.fixture
def assembly(parts: Path, tmp_path: Path) -> Assembly:
    return Assembly(parts / "vision", parts / "llama", tmp_path / "made")
