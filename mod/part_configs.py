"""Which configs of a tower and a language model can work together: each refusal names its field."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig
from transformers.activations import ACT2FN
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

#: Whole numbers of either part, as far as it has them.
_SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "num_channels",
    "image_size",
    "patch_size",
)
#: What weights can be computed with.
_DTYPES = ("float16", "bfloat16", "float32", "float64")
TOWER = "siglip_vision_model"
#: Kinds of RoPE whose frequencies change with the length of what is seen at once.
UNSTEADY_ROPE = ("dynamic", "longrope")


def check_dtype(field: str, dtype: Any) -> None:
    """Refuse what weights cannot be computed with.

    Args:
        dtype: as a config has it: a name, torch's own, or None.

    Raises:
        ValueError: names ``field``.
    """
    if dtype is not None and str(dtype).removeprefix("torch.") not in (*_DTYPES, "auto"):
        raise ValueError(f"{field} must be one of {', '.join(_DTYPES)}, not {str(dtype)!r}")


def check_given(fields: Mapping[str, Any]) -> None:
    """Refuse what transformers would stumble over before anything else can look at it.

    Args:
        fields: of a config, parts as they were given.

    Raises:
        ValueError: names the field.
    """
    check_dtype("dtype", fields.get("dtype"))
    for name in ("vision_config", "text_config"):
        part = fields.get(name)
        if isinstance(part, dict):
            check_dtype(f"{name}.dtype", part.get("dtype"))
            _check_sizes(name, part)
        elif not isinstance(part, PreTrainedConfig | None):
            raise ValueError(f"{name} must be a config or its dict, not {part!r}")


def check_vision(vision: Any, *, channels: int, pool_grid: int, pooled: bool) -> None:
    """Refuse a tower that cannot see.

    Args:
        vision: a ``SiglipVisionConfig``.
        channels: that it is given.
        pool_grid: tokens a side that its patches are pooled to.
        pooled: whether its pooled token is read.

    Raises:
        ValueError: names the field.
    """
    if vision.model_type != TOWER:
        raise ValueError(f"vision_config.model_type must be {TOWER!r}, not {vision.model_type!r}")
    _check_part("vision_config", vision)
    if vision.num_channels != channels:
        raise ValueError(
            f"vision_config.num_channels must be {channels} with frame_difference="
            f"{channels == 6}, not {vision.num_channels}"
        )
    side = vision.image_size // vision.patch_size
    if side < pool_grid:
        raise ValueError(f"pool_grid {pool_grid} is finer than the tower's {side}x{side} patches")
    if pooled and not vision.vision_use_head:
        raise ValueError(
            "vision_config.vision_use_head must be true, or class_token 'none': the head makes it"
        )


def check_text(text: Any) -> None:
    """Refuse a language model whose layers cannot attend to a whole stream.

    Raises:
        ValueError: names the field.
    """
    if text.is_encoder_decoder:
        raise ValueError("text_config must be a decoder alone, not an encoder with a decoder")
    _check_part("text_config", text)
    rope = getattr(text, "rope_parameters", None) or {}
    if "rope_type" in rope and rope["rope_type"] not in ("default", *ROPE_INIT_FUNCTIONS):
        raise ValueError(
            f"text_config.rope_parameters.rope_type {rope['rope_type']!r} is not known to "
            "transformers"
        )
    heads = text.num_attention_heads
    kv_heads = getattr(text, "num_key_value_heads", None) or heads
    if heads % kv_heads:
        raise ValueError(
            f"text_config.num_attention_heads {heads} is no multiple of its {kv_heads} "
            "num_key_value_heads"
        )
    kinds = getattr(text, "layer_types", None) or []
    if any(kind != "full_attention" for kind in kinds):
        raise ValueError("text_config.layer_types must all be full_attention")
    # Some say of each layer how far it sees; of the others this is for all of them.
    window = getattr(text, "sliding_window", None)
    if window and not kinds:
        raise ValueError(
            f"text_config.sliding_window must be null, not {window}: a stream is seen whole"
        )


def unsteady_rope(text: Any) -> str | None:
    """The kind of a language model's RoPE where it changes with length; else None."""
    kind = (getattr(text, "rope_parameters", None) or {}).get("rope_type")
    return kind if kind in UNSTEADY_ROPE else None


def check_rope(text: Any) -> None:
    """Refuse a language model whose keys depend on how much runs at once.

    Transformers takes the length from all that shares a forward: a stream's numbers would be those
    of its neighbours and its chunks.

    Raises:
        ValueError: names the field.
    """
    if kind := unsteady_rope(text):
        raise ValueError(
            f"text_config.rope_parameters.rope_type must not be {kind!r}: it changes with length"
        )


def _check_sizes(name: str, sizes: Mapping[str, Any]) -> None:
    for field in _SIZES:
        size = sizes.get(field)
        if size is not None and (type(size) is not int or size < 1):
            raise ValueError(f"{name}.{field} must be a whole number of 1 or more, not {size!r}")


def _check_part(name: str, part: Any) -> None:
    _check_sizes(name, {field: getattr(part, field, None) for field in _SIZES})
    heads = part.num_attention_heads
    if part.hidden_size % heads and not hasattr(part, "head_dim"):
        raise ValueError(
            f"{name}.hidden_size {part.hidden_size} is no multiple of its {heads} "
            "num_attention_heads"
        )
    act = getattr(part, "hidden_act", None)
    if isinstance(act, str) and act not in ACT2FN:
        raise ValueError(f"{name}.hidden_act {act!r} is not known to transformers")
    check_dtype(f"{name}.dtype", part.dtype)


def check_positive(field: str, value: float) -> None:
    """Refuse a number that is not finite and above 0.

    Raises:
        ValueError: names ``field``.
    """
    if not 0.0 < value < math.inf:
        raise ValueError(f"{field} must be above 0, not {value}")
