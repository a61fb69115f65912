"""Pretrained parts in folders, read and refused: what a checkpoint can be assembled from."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    SiglipVisionConfig,
)

from longreel.errors import UsageError
from mod.config import VideoLLMMoDConfig
from mod.decoder import Stream
from mod.modeling import Connector, VideoLLMMoD
from mod.part_configs import unsteady_rope

# VideoLLM-online's connector is a Sequential, ours has names.
_CONNECTOR = {"0": "up", "2": "down", "up": "up", "down": "down"}
_CONNECTOR_TENSOR = re.compile(r"(?:^|\.)connector\.(?:.+\.)?(0|2|up|down)\.(weight|bias)$")


class Adapter(NamedTuple):
    """A LoRA folder's tensors; those of its connector apart, by the names of ours."""

    folder: Path
    tensors: dict[str, Tensor]
    connector: dict[str, Tensor]


def readable(what: str, folder: Path, read: Callable[[], Any]) -> Any:
    """What ``read`` returns; its failures, of whatever kind the library raises, in one line.

    Raises:
        UsageError: there is no such folder, or what is in it cannot be read.
    """
    if not folder.is_dir():
        raise UsageError(f"no {what} at {str(folder)!r}: there is no such folder")
    try:
        return read()
    except Exception as failure:
        raise UsageError(
            f"the {what} at {str(folder)!r} cannot be loaded: {one_line(failure)}"
        ) from None


def one_line(failure: Exception) -> str:
    """A library's account of a failure, cut down to what tells the user something."""
    lines = [line.strip() for line in str(failure).splitlines() if line.strip()]
    if not lines:
        return type(failure).__name__
    if isinstance(failure, KeyError):
        return f"it holds no {lines[0]}"
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]


def loaded(what: str, folder: Path, kind: Any, dtype: Any) -> Any:
    """A model with all its weights from ``folder``.

    Raises:
        UsageError: weights are missing, of another shape, or cannot be read.
    """
    model, info = readable(
        what,
        folder,
        lambda: kind.from_pretrained(
            folder,
            dtype=dtype,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        ),
    )
    for name, have, wanted in sorted(info["mismatched_keys"]):
        raise UsageError(
            f"the {what} at {str(folder)!r} has {name!r} of shape {tuple(have)}; its config asks "
            f"for {tuple(wanted)}"
        )
    for name in sorted(info["missing_keys"]):
        raise UsageError(f"the {what} at {str(folder)!r} lacks the weight {name!r}")
    return model


def auto(kind: Any, folder: Path) -> Any:
    """A part of ``kind``, one of transformers' ``Auto`` classes, out of a folder alone."""
    return kind.from_pretrained(folder, local_files_only=True)


def _json(what: str, folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = readable(
        what, folder, lambda: dict(json.loads((folder / name).read_text()))
    )
    return found


def vision_config_of(folder: Path) -> Any:
    """The config of the SigLIP vision tower in a folder.

    Raises:
        UsageError: it is none, or cannot take frames.
    """
    kind = _json("vision tower", folder, "config.json").get("model_type")
    named = f"the vision tower at {str(folder)!r}"
    if kind not in ("siglip", "siglip_vision_model"):
        raise UsageError(f"{named} is a {kind!r}, not a SigLIP vision model")
    found = readable("vision tower", folder, lambda: auto(AutoConfig, folder))
    config = getattr(found, "vision_config", found)
    if not (isinstance(config.image_size, int) and isinstance(config.patch_size, int)):
        raise UsageError(f"{named} does not take square pictures")
    if not config.vision_use_head:
        raise UsageError(f"{named} has no pooling head, which makes the class token")
    return config


def text_config_of(folder: Path) -> Any:
    """The config of the language model in a folder.

    Raises:
        UsageError: it is none whose layers can attend to a whole stream, at places that stay.
    """
    kind = _json("language model", folder, "config.json").get("model_type")
    config = readable("language model", folder, lambda: auto(AutoConfig, folder))
    named = f"the language model at {str(folder)!r}"
    decoder_only = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and not config.is_encoder_decoder
    if not decoder_only or config.get_text_config() is not config:
        raise UsageError(f"{named} is a {kind!r}, not a decoder-only language model")
    if getattr(config, "quantization_config", None):
        raise UsageError(f"{named} is quantized; its full weights are needed")
    kinds = set(getattr(config, "layer_types", None) or [])
    window = None if kinds else getattr(config, "sliding_window", None)
    if window or kinds - {"full_attention"}:
        seen = f"sliding_window {window}" if window else ", ".join(sorted(kinds))
        raise UsageError(f"{named} has layers that do not attend to the whole stream ({seen})")
    if rope := unsteady_rope(config):
        raise UsageError(f"{named} has rotary positions that change with length ({rope})")
    return config


def read_adapter(folder: Path) -> Adapter:
    """The LoRA in a folder, and the connector that came with it.

    Raises:
        UsageError: it is no LoRA, or cannot be read.
    """
    kind = _json("LoRA", folder, "adapter_config.json").get("peft_type")
    if kind != "LORA":
        raise UsageError(f"the adapter at {str(folder)!r} is a {kind!r}, not a LoRA")
    tensors = readable("LoRA", folder, lambda: load_file(folder / "adapter_model.safetensors"))
    found = {name: _CONNECTOR_TENSOR.search(name) for name in tensors}
    connector = {f"{_CONNECTOR[m[1]]}.{m[2]}": tensors.pop(name) for name, m in found.items() if m}
    return Adapter(folder, tensors, connector)


def fitting_connector(adapter: Adapter | None, vision: Any, text: Any) -> dict[str, Tensor]:
    """The adapter's connector; empty where there is none.

    Raises:
        UsageError: it does not fit tower and language model.
    """
    if not (adapter and adapter.connector):
        return {}
    with torch.device("meta"):
        wanted = Connector(vision.hidden_size, text.hidden_size).state_dict()
    named = f"the connector at {str(adapter.folder)!r}"
    for name, like in wanted.items():
        if name not in adapter.connector:
            raise UsageError(f"{named} lacks {name!r}")
        if (have := adapter.connector[name].shape) != like.shape:
            raise UsageError(
                f"{named} does not fit: its {name!r} has shape {tuple(have)}, this vision tower "
                f"and language model need {tuple(like.shape)}"
            )
    return adapter.connector


def refuse_other_arithmetic(text_config: Any) -> None:
    """Compare one layer of the type, alone and as transformers runs it, on random weights.

    Some types cannot run layer by layer; others scale or cap something outside their layers and
    would be wrong without a word.

    Raises:
        UsageError: the type cannot run so, or comes to other values.
    """
    small = copy.deepcopy(text_config)
    small.num_hidden_layers, small.vocab_size, small.pad_token_id = 1, 64, None
    small.dtype = torch.float32
    if getattr(small, "layer_types", None):
        small.layer_types = small.layer_types[:1]
    vision = SiglipVisionConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    config = VideoLLMMoDConfig(vision_config=vision, text_config=small, router="none")
    named = f"model type {text_config.model_type!r} is not supported"
    ids = torch.arange(16)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = VideoLLMMoD(config).eval()
        stream = Stream(model.embed_text(ids), ids, ids[:0], [len(ids)])
        ours = model.logits(model(stream))
        model.language_model.set_attn_implementation("eager")
        theirs = model.language_model(input_ids=ids[None], use_cache=False).logits[0]
    except Exception as failure:
        raise UsageError(
            f"{named}: its layers cannot run one by one ({one_line(failure)})"
        ) from None
    error = float((ours - theirs).norm() / theirs.norm())
    if not error < 1e-4:
        raise UsageError(f"{named}: its layers alone give other logits (off by {error:.1%})")
