"""Checkpoints by name, folder or hub id: what they are, and which revision."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from longreel.errors import UsageError
from mod.routers import mean_ratio
from mod.weights import weight_bytes

if TYPE_CHECKING:
    from mod.config import AdoptedConfig

TINY = "longreel-tiny"
OURS = "videollm_mod"
#: Model types of open models that are served as they are; ``mod.families.known`` has how.
OPEN = ("idefics3", "llava_onevision", "qwen2_5_vl", "qwen3_vl", "smolvlm")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
#: What of a hub repository is needed.
_PARTS = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"]
_TEXT_FILES = (
    "config.json",
    "tokenizer.json",
    "generation_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
)


@dataclass(frozen=True)
class Checkpoint:
    """A folder with a model.

    Attributes:
        name: what the user calls it.
        revision: first 12 hex digits of the SHA-256 over config, weights and tokenizer.
        folder: where it lies.
        kind: transformers' model type; ``videollm_mod`` is VideoLLM-MoD.
        image_size: side of the tower's input, in pixels.
        fps: frames a second it was trained on.
        keep_ratio: share of a frame's vision tokens that run in MoD layers, the mean over those.
        router: what chooses them.
        instruction: text that opens a session by default.
        n_layers: of the decoder; None where nobody knows.
    """

    name: str
    revision: str
    folder: Path
    image_size: int
    fps: float
    keep_ratio: float
    router: str
    instruction: str
    n_layers: int | None
    kind: str = OURS


def find_checkpoint(model: str, *, check: Callable[[Path], None] | None = None) -> Checkpoint:
    """Describe the checkpoint called ``model``: a folder, a hub id, or ``longreel-tiny``.

    Args:
        check: may refuse the folder before all weights are read for the revision, which takes
            minutes of a large model.

    Raises:
        UsageError: there is no such checkpoint, or it is none that can be served.
    """
    folder = _folder(model)
    try:
        config = json.loads((folder / "config.json").read_text())
        kind = config["model_type"]
    except (ValueError, KeyError, TypeError):
        raise UsageError(f"the config.json of the model at {model!r} names no model type") from None
    if kind == OURS:
        size = config["vision_config"]["image_size"]
        n_layers = config["text_config"]["num_hidden_layers"]
    elif kind in OPEN:
        adopted = _adopted(folder)
        config, size = adopted.to_dict(), adopted.image_size
        n_layers = adopted.get_text_config().num_hidden_layers
    else:
        known = ", ".join((OURS, *OPEN))
        raise UsageError(f"the model at {model!r} is a {kind!r}; known are {known}")
    try:
        weight_bytes(folder)  # for what is wrong with the files
    except ValueError as failure:
        raise UsageError(f"the model at {model!r} cannot be loaded: {failure}") from None
    if check is not None:
        check(folder)
    return Checkpoint(
        name=folder.resolve().name if folder == Path(model) else model,
        revision=_revision(folder.resolve()),
        folder=folder.resolve(),
        image_size=int(size),
        fps=float(config["fps"]),
        keep_ratio=float(mean_ratio(config["keep_ratio"], config.get("keep_ratios"))),
        router=str(config["router"]),
        instruction=str(config["instruction"]),
        n_layers=int(n_layers),
        kind=kind,
    )


def located_model(model: str) -> str:
    """``model`` as it reads from any working folder: a folder's path becomes absolute.

    A name on the hub stays as it is, unless a folder is called so here.
    """
    if model == TINY or (_HUB_ID.fullmatch(model) and not Path(model).exists()):
        return model
    return str(Path(model).absolute())


def _folder(model: str) -> Path:
    if model == TINY:
        return Path(__file__).parent / "checkpoints" / TINY
    folder = Path(model)
    if not folder.exists() and _HUB_ID.fullmatch(model):
        folder = _from_hub(model)
    if (folder / "config.json").is_file():
        return folder
    if (folder / "adapter_config.json").is_file():
        raise UsageError(
            f"the model at {model!r} is a LoRA alone: longreel assemble --lora puts it together "
            "with what it was trained on"
        )
    if folder != Path(model):
        raise UsageError(f"the model {model!r} on the hub has no config.json")
    raise UsageError(
        f"no model at {model!r}: expected {TINY!r}, a folder with a config.json, or the name "
        "of a repository on the Hugging Face hub"
    )


@lru_cache(maxsize=8)
def _from_hub(name: str) -> Path:
    """A hub repository's files; the local cache's where the hub cannot be reached."""
    # Here, because it takes a second to import that most commands need not spend.
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=_PARTS, etag_timeout=5))
    except Exception as failure:
        # Of any kind that its HTTP client, the hub or the disk has.
        reason = (str(failure).strip() or type(failure).__name__).splitlines()[0]
        raise UsageError(f"the model {name!r} cannot be had from the hub: {reason}") from None


def _adopted(folder: Path) -> AdoptedConfig:
    """How an open model is used by default."""
    # Here, because it needs torch, which takes seconds to import.
    from mod.adopted import adopted_config, adopted_layout

    try:
        config = adopted_config(folder)
        adopted_layout(folder, config)  # refused here rather than by a replica, minutes later
    except Exception as failure:
        # Whatever transformers makes of a config that it cannot use.
        reason = " ".join(str(failure).split())[:200]
        raise UsageError(f"the model at {str(folder)!r} cannot be used: {reason}") from None
    return config


@lru_cache(maxsize=8)
def _revision(folder: Path) -> str:
    digest = hashlib.sha256()
    files = [folder / name for name in _TEXT_FILES] + sorted(folder.glob("*.safetensors"))
    for file in files:
        if file.is_file():
            digest.update(file.name.encode())
            with file.open("rb") as source:
                digest.update(hashlib.file_digest(source, "sha256").digest())
    return digest.hexdigest()[:12]
