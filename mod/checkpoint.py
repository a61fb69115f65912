"""Checkpoints by name or folder: what they are, and which revision."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from longreel.errors import UsageError

TINY = "longreel-tiny"


@dataclass(frozen=True)
class Checkpoint:
    """A folder with a VideoLLM-MoD model.

    Attributes:
        name: what the user calls it.
        revision: first 12 hex digits of the SHA-256 over config, weights and tokenizer.
        folder: where it lies.
        image_size: side of the tower's input, in pixels.
        fps: frames a second it was trained on.
        keep_ratio: share of a frame's vision tokens that run in MoD layers.
        router: what chooses them.
        instruction: text that opens a session by default.
    """

    name: str
    revision: str
    folder: Path
    image_size: int
    fps: float
    keep_ratio: float
    router: str
    instruction: str


def find_checkpoint(model: str) -> Checkpoint:
    """Describe the checkpoint called ``model``: a folder, or ``longreel-tiny``.

    Raises:
        UsageError: there is no such checkpoint, or it is not a VideoLLM-MoD model.
    """
    folder = Path(__file__).parent / "checkpoints" / TINY if model == TINY else Path(model)
    config_file = folder / "config.json"
    if not config_file.is_file():
        raise UsageError(f"no model at {model!r}: expected {TINY!r} or a folder with a config.json")
    config = json.loads(config_file.read_text())
    if config.get("model_type") != "videollm_mod":
        kind = config.get("model_type", "unknown")
        raise UsageError(f"the model at {model!r} is a {kind!r}, not a 'videollm_mod'")
    return Checkpoint(
        name=model if model == TINY else folder.resolve().name,
        revision=_revision(folder.resolve()),
        folder=folder.resolve(),
        image_size=int(config["vision_config"]["image_size"]),
        fps=float(config["fps"]),
        keep_ratio=float(config["keep_ratio"]),
        router=str(config["router"]),
        instruction=str(config["instruction"]),
    )


@lru_cache(maxsize=8)
def _revision(folder: Path) -> str:
    digest = hashlib.sha256()
    names = ("config.json", "tokenizer.json", "generation_config.json")
    files = [folder / name for name in names] + sorted(folder.glob("*.safetensors"))
    for file in files:
        if file.is_file():
            digest.update(file.name.encode())
            with file.open("rb") as source:
                digest.update(hashlib.file_digest(source, "sha256").digest())
    return digest.hexdigest()[:12]
