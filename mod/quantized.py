"""The decoder's linear maps in eight or four bits: weights alone, arithmetic as before.

transformers does it, by optimum-quanto; tower, connector, embeddings and head stay as they are.
Light enough for a command line to import.
"""

from __future__ import annotations

import re
import warnings
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from longreel.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

#: Bytes of a weight by kind, with what its scales take.
KINDS = {"int8": 1.02, "int4": 0.57}
#: Names of modules in the decoder's layers, as models and as older files spell them.
_DECODER = r"(?:^|\.)(?:language_model|text_model)\.(?:model\.)?layers\.|^model\.layers\."


def check_quantize(kind: str | None) -> None:
    """Refuse a kind that cannot be had.

    Raises:
        UsageError: there is none of this name, or the library is missing.
    """
    if kind is None:
        return
    if kind not in KINDS:
        raise UsageError(f"--quantize must be one of {', '.join(KINDS)}, not {kind!r}")
    if find_spec("optimum") is None or find_spec("optimum.quanto") is None:
        raise UsageError("--quantize needs optimum-quanto: pip install 'longreel[quantize]'")


def quantization(kind: str) -> Any:
    """``quantization_config`` for transformers' ``from_pretrained``."""
    from transformers import QuantoConfig

    _need_no_compiler()
    return QuantoConfig(weights=kind, modules_to_not_convert=[rf"(?!.*(?:{_DECODER})).*"])


def unpack(packed: Tensor, bits: int) -> Tensor:
    """Small integers out of the bytes that hold several.

    Args:
        packed: (n, ...) uint8, the first of a byte's integers in its lowest bits.
        bits: of one integer: 2 or 4.

    Returns:
        (n * 8 / bits, ...) uint8: the first integers of all bytes, then the second ones, and so on.
    """
    import torch

    return torch.cat([packed >> low & (1 << bits) - 1 for low in range(0, 8, bits)])


@cache
def _need_no_compiler() -> Any:
    """Have optimum-quanto unpack in torch's operations.

    Its own kernels are compiled into its own folder where they first run: a minute, a compiler and
    the right to write there, of which an image has none.

    Returns:
        What keeps the replacement in place.
    """
    import optimum.quanto  # noqa: F401  # registers what is replaced
    from torch.library import Library

    replaced: Any = Library("quanto", "IMPL")  # type: ignore[no-untyped-call]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "[\\s\\S]*Overriding a previously registered kernel")
        for device in ("CPU", "CUDA"):
            replaced.impl("unpack", unpack, device)
    return replaced


def is_quantized(name: str, shape: list[int]) -> bool:
    """Whether a tensor of a checkpoint's files is one of those weights."""
    return len(shape) == 2 and re.search(_DECODER, name) is not None
