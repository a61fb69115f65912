"""A router that is chosen when a checkpoint is loaded, as the command line spells it.

``KIND`` or ``KIND:LAYERS``, such as ``redundancy``, ``attention:after-2`` or ``norm:1,3,5``. Light
enough for a command line to import.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from longreel.errors import UsageError
from mod.checkpoint import Checkpoint
from mod.routers import (
    PLACEMENTS,
    ROUTERS,
    TRAINED,
    Router,
    check_layers,
    layers_of,
    placed,
)


@dataclass(frozen=True)
class RouterChoice:
    """What routes a checkpoint's frames in place of its own router.

    Attributes:
        layers: a placement or layer numbers; None takes the checkpoint's own.
    """

    kind: Router
    layers: str | list[int] | None = None


def choose_router(
    spelled: str, checkpoint: Checkpoint | None, *, new: bool = False, named: str = "--router"
) -> RouterChoice:
    """Take ``spelled`` apart.

    Args:
        checkpoint: whose weights it must do with; None where there are none yet.
        new: it will be trained, and needs no weights yet.
        named: what was spelled so, for errors.

    Raises:
        UsageError: there is no such router, or the checkpoint has no weights or layers for it.
    """
    kind, colon, rest = spelled.partition(":")
    if kind not in ROUTERS:
        raise UsageError(f"{named} must be one of {', '.join(ROUTERS)}, not {kind!r}")
    layers = layers_of(rest) if colon else None
    if colon and layers is None:
        raise UsageError(
            f"the layers of {named} must be one of {', '.join(PLACEMENTS)}, or numbers such as "
            f"1,3,5, not {rest!r}"
        )
    if layers is not None and checkpoint is not None and checkpoint.n_layers is not None:
        _require_layers(layers, checkpoint.n_layers, named)
    if kind in TRAINED and checkpoint is not None and kind != checkpoint.router and not new:
        has = f"no weights of a router, which {named} {kind} needs"
        if checkpoint.router in TRAINED:
            has = f"a router trained as {checkpoint.router!r}, which {named} {kind} cannot use"
        raise UsageError(f"the model at {str(checkpoint.folder)!r} has {has}")
    return RouterChoice(cast(Router, kind), layers)


def _require_layers(layers: str | list[int], n_layers: int, named: str) -> None:
    """Refuse layers that a decoder of ``n_layers`` does not have."""
    try:
        numbers = placed(layers, n_layers, named) if isinstance(layers, str) else layers
        check_layers(numbers, n_layers, named)
    except ValueError as failure:
        raise UsageError(str(failure)) from None


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
