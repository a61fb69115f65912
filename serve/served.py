"""Which model a replica holds and how it runs: what rows name, and what a job must get."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Served:
    """What decides a replica's words.

    Attributes:
        model: name of the checkpoint.
        revision: of its files.
        keep_ratio: in use, whoever chose it.
        router: where it is not the checkpoint's own.
        quantize: what the weights were turned into, if anything.
    """

    model: str
    revision: str
    keep_ratio: float
    router: str | None = None
    quantize: str | None = None


def difference(have: Served, wanted: Served) -> str | None:
    """What a job would not get of a service, in one line; None where it gets what it wants."""
    if have.revision != wanted.revision:
        return (
            f"the running service holds model {have.model} {have.revision}, "
            f"the job wants {wanted.model} {wanted.revision}"
        )
    if have.keep_ratio != wanted.keep_ratio:
        return (
            f"the running service uses keep ratio {have.keep_ratio}, "
            f"the job wants {wanted.keep_ratio}"
        )
    if have.router != wanted.router:
        used, asked = (name or "the model's own" for name in (have.router, wanted.router))
        return f"the running service uses router {used}, the job wants {asked}"
    if have.quantize != wanted.quantize:
        used, asked = (name or "whole" for name in (have.quantize, wanted.quantize))
        return f"the running service has weights {used}, the job wants them {asked}"
    return None
