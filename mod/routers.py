"""The kinds of routers, and which layers route, as configs and commands spell them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from statistics import fmean
from typing import Any, Literal, get_args

Router = Literal[
    "learned",
    "bounded",
    "uniform",
    "random",
    "redundancy",
    "norm",
    "attention",
    "skip",
    "none",
]
ROUTERS = get_args(Router)
#: Those with weights of their own.
TRAINED: tuple[Router, ...] = ("learned", "bounded")
PLACEMENTS = ("interleaved", "interleaved-deep", "all", "all-deep", "after-N")
_PLACEMENT = re.compile(r"(interleaved|all)(-deep)?|after-\d+")


def mean_ratio(keep_ratio: float, keep_ratios: Sequence[float] | None) -> float:
    """Share of a frame's vision tokens (0-1) that run in MoD layers, the mean over those.

    Args:
        keep_ratios: of single layers, where a config has them.
    """
    return fmean(keep_ratios) if keep_ratios else keep_ratio


def layers_of(spelled: str) -> str | list[int] | None:
    """Layers as a placement or as numbers with commas between them; None where it is neither."""
    if re.fullmatch(r"\d+(,\d+)*", spelled):
        return [int(layer) for layer in spelled.split(",")]
    return spelled if _PLACEMENT.fullmatch(spelled) else None


def placed(placement: str, n_layers: int, named: str = "mod_layers") -> list[int]:
    """The layers of a named placement.

    Args:
        named: what was spelled so, for errors.

    Raises:
        ValueError: there is no such placement, or no layer left in it.
    """
    if not isinstance(layers_of(placement), str):
        raise ValueError(f"{named} must be a list or one of {PLACEMENTS}, not {placement!r}")
    first = 2 if placement.endswith("-deep") else 0
    if placement.startswith("after-"):
        first = int(placement.removeprefix("after-"))
        if first >= n_layers:
            raise ValueError(f"{named} {placement!r} leaves none of {n_layers} layers")
    every_other = placement.startswith("interleaved")
    return [layer for layer in range(first, n_layers) if not every_other or layer % 2]


def check_layers(layers: Any, n_layers: int, named: str = "mod_layers") -> None:
    """Refuse MoD layers that a model of ``n_layers`` has not, each once.

    Args:
        named: what holds ``layers``, for errors.

    Raises:
        ValueError: says what ``named`` should be.
    """
    if not isinstance(layers, list | tuple) or any(type(layer) is not int for layer in layers):
        raise ValueError(f"{named} must be a placement or a list of layers, not {layers!r}")
    for layer in layers:
        if not 0 <= layer < n_layers:
            raise ValueError(f"{named} names layer {layer}; the model has {n_layers}")
    if len(set(layers)) != len(layers):
        raise ValueError(f"{named} names a layer twice: {layers}")
