"""Claims about open models at their full size, the same of each."""

from __future__ import annotations

from collections.abc import Iterator

from bench.bars import Claim
from bench.names import of_model
from infra.openmodels.published import PUBLISHED


def _claims(bench: str) -> Iterator[Claim]:
    yield Claim(
        bench,
        "ratios/bulk_over_plain_loop",
        "frames a second of one stream in which nothing is said over the plain loop's "
        "(transformers' own decoder and cache, one step of frames a forward, dense)",
        beside="more is better",
    )
    yield Claim(
        bench,
        "ratios/mod_time_over_cost_model",
        "wall time of the `redundancy` router (r = 0.2, every other layer) over dense on the same "
        "engine, over what the decoder's arithmetic would have it be",
        beside="1 is all of what is skipped",
    )
    yield Claim(
        bench,
        "ratios/mod_cache_over_dense",
        "bytes of keys and values, routed over dense",
        beside="less is better",
    )
    yield Claim(
        bench,
        "derived/live_mod",
        "most live streams with a window of 256 frames, or what the context holds, that were tried "
        "and seen within 1 s, 99 frames in 100",
        beside="more is better",
    )
    yield Claim(
        bench,
        "derived/live_dense",
        "the same of the dense model",
        beside="compare the row above",
    )


OPEN: tuple[Claim, ...] = tuple(
    claim for model in PUBLISHED for claim in _claims(of_model("large", model))
)
