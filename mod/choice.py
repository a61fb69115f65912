"""A router that is chosen when a checkpoint is loaded, as the command line spells it.

``KIND`` or ``KIND:LAYERS``, such as ``redundancy``, ``attention:after-2`` or ``norm:1,3,5``. Light
enough for a command line to import.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, cast, get_args

from longreel.errors import UsageError
from mod.checkpoint import Checkpoint

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


@dataclass(frozen=True)
class RouterChoice:
    """What routes a checkpoint's frames in place of its own router.

    Attributes:
        layers: a placement or layer numbers; None takes the checkpoint's own.
    """

    kind: Router
    layers: str | list[int] | None = None


def layers_of(spelled: str) -> str | list[int] | None:
    """Layers as a placement or as numbers with commas between them; None where it is neither."""
    if re.fullmatch(r"\d+(,\d+)*", spelled):
        return [int(layer) for layer in spelled.split(",")]
    return spelled if _PLACEMENT.fullmatch(spelled) else None


def choose_router(spelled: str, checkpoint: Checkpoint, *, new: bool = False) -> RouterChoice:
    """Take ``spelled`` apart.

    Args:
        new: it will be trained, and needs no weights yet.

    Raises:
        UsageError: there is no such router, or the checkpoint has no weights for it.
    """
    kind, colon, rest = spelled.partition(":")
    if kind not in ROUTERS:
        raise UsageError(f"--router must be one of {', '.join(ROUTERS)}, not {kind!r}")
    layers = layers_of(rest) if colon else None
    if colon and layers is None:
        raise UsageError(
            f"the layers of --router must be one of {', '.join(PLACEMENTS)}, or numbers such as "
            f"1,3,5, not {rest!r}"
        )
    if kind in TRAINED and checkpoint.router not in TRAINED and not new:
        raise UsageError(
            f"the model at {str(checkpoint.folder)!r} has no weights of a router, which "
            f"--router {kind} needs"
        )
    return RouterChoice(cast(Router, kind), layers)


def require_router(keep_ratio: float | None, router: str | None, checkpoint: Checkpoint) -> None:
    """Refuse a keep ratio that nothing would act on.

    Args:
        router: that takes the place of the checkpoint's own; None where none was chosen.

    Raises:
        UsageError: tokens are to be skipped and there is no router.
    """
    if keep_ratio is not None and keep_ratio < 1.0 and (router or checkpoint.router) == "none":
        raise UsageError(
            f"a keep ratio of {keep_ratio:g} needs a router, which the model at "
            f"{str(checkpoint.folder)!r} has not: choose one by --router, such as redundancy"
        )
