"""What each figure means, the bar it is held to, and where it misses its bar, why.

The bars are what this project aims at: the paper's own numbers where it has some, and elsewhere
how far systems beside it should be left behind.
"""

from __future__ import annotations

from bench.bars import Claim
from bench.claims_ablate import ABLATE
from bench.claims_model import ENGINE, FLOPS, LARGE, MODEL, WEIGHTS
from bench.claims_open import OPEN
from bench.claims_service import AUTOSCALE, DECODE, HOSTILE, PROFILE, SCALE, SERVE

#: In the order in which the page has them.
CLAIMS: tuple[Claim, ...] = (
    *DECODE,
    *ENGINE,
    *LARGE,
    *OPEN,
    *MODEL,
    *SERVE,
    *AUTOSCALE,
    *SCALE,
    *PROFILE,
    *WEIGHTS,
    *ABLATE,
    *HOSTILE,
    *FLOPS,
)


def claim_of(bench: str, path: str) -> Claim | None:
    """What is said of a figure; None of one that is not known here."""
    return next((c for c in CLAIMS if (c.bench, c.path) == (bench, path)), None)
