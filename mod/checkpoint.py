"""Checkpoints by name, folder or hub id: what they are, and which revision."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from longreel.errors import UsageError
from mod.quantized import KINDS, is_quantized

TINY = "longreel-tiny"
OURS = "videollm_mod"
#: Model types of open models that are served as they are; ``mod.families.known`` has how.
OPEN = ("idefics3", "llava_onevision", "qwen2_5_vl", "qwen3_vl", "smolvlm")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
#: What of a hub repository is needed.
_PARTS = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"]
#: Bytes of an element by safetensors' names of types; others count as 4.
_WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I8": 1, "U8": 1, "F8_E4M3": 1, "F8_E5M2": 1}
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
    kind: str = OURS


def find_checkpoint(model: str) -> Checkpoint:
    """Describe the checkpoint called ``model``: a folder, a hub id, or ``longreel-tiny``.

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
    elif kind in OPEN:
        config, size = _adopted(folder)
    else:
        known = ", ".join((OURS, *OPEN))
        raise UsageError(f"the model at {model!r} is a {kind!r}; known are {known}")
    try:
        weight_bytes(folder)  # for what is wrong with the files
    except ValueError as failure:
        raise UsageError(f"the model at {model!r} cannot be loaded: {failure}") from None
    return Checkpoint(
        name=folder.resolve().name if folder == Path(model) else model,
        revision=_revision(folder.resolve()),
        folder=folder.resolve(),
        image_size=int(size),
        fps=float(config["fps"]),
        keep_ratio=float(config["keep_ratio"]),
        router=str(config["router"]),
        instruction=str(config["instruction"]),
        kind=kind,
    )


def _folder(model: str) -> Path:
    if model == TINY:
        return Path(__file__).parent / "checkpoints" / TINY
    folder = Path(model)
    if (folder / "config.json").is_file():
        return folder
    if folder.exists() or not _HUB_ID.fullmatch(model):
        raise UsageError(
            f"no model at {model!r}: expected {TINY!r}, a folder with a config.json, or the name "
            "of a repository on the Hugging Face hub"
        )
    return _from_hub(model)


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


def _adopted(folder: Path) -> tuple[dict[str, Any], int]:
    """How an open model is used by default, and the side of its pictures."""
    # Here, because it needs torch, which takes seconds to import.
    from mod.adopted import adopted_config, adopted_layout

    try:
        config = adopted_config(folder)
        adopted_layout(folder, config)  # refused here rather than by a replica, minutes later
    except Exception as failure:
        # Whatever transformers makes of a config that it cannot use.
        reason = " ".join(str(failure).split())[:200]
        raise UsageError(f"the model at {str(folder)!r} cannot be used: {reason}") from None
    return config.to_dict(), config.image_size


def weight_bytes(folder: Path, width: int | None = None, quantize: str | None = None) -> int:
    """Bytes of all weights in a folder's safetensors, from their headers alone.

    Args:
        width: bytes of an element as it is loaded; None counts those of the files.
        quantize: what the decoder's linear maps are turned into, if anything.

    Raises:
        ValueError: a file is no safetensors, or shorter than its header says.
    """
    total = 0
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as source:
            size = int.from_bytes(source.read(8), "little")
            end = 8 + size
            try:
                header = json.loads(source.read(size)) if end <= file.stat().st_size else None
            except ValueError:
                header = None
        if not isinstance(header, dict):
            raise ValueError(f"{file.name} is no safetensors file, or is cut off")
        for name, tensor in header.items():
            if name == "__metadata__":
                continue
            first, last = tensor["data_offsets"]
            if end + last > file.stat().st_size:
                raise ValueError(f"{file.name} is cut off: it ends amid {name!r}")
            element = _WIDTHS.get(tensor["dtype"], 4)
            count = (last - first) // element
            if quantize and is_quantized(name, tensor["shape"]):
                total += int(count * KINDS[quantize])
            else:
                total += count * (width or element)
    return total


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
