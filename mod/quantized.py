"""The decoder's linear maps in eight or four bits: weights alone, arithmetic as before.

transformers does it, by optimum-quanto; tower, connector, embeddings and head stay as they are.
Light enough for a command line to import.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Any

from longreel.errors import UsageError

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

    return QuantoConfig(weights=kind, modules_to_not_convert=[rf"(?!.*(?:{_DECODER})).*"])


def is_quantized(name: str, shape: list[int]) -> bool:
    """Whether a tensor of a checkpoint's files is one of those weights."""
    return len(shape) == 2 and re.search(_DECODER, name) is not None
