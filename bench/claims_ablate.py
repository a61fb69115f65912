"""Claims about the defaults, one knob turned at a time: grouped by knob."""

from __future__ import annotations

from bench.bars import Bar, Claim, at_least

CHUNK, KEEP, ROUTER = "Chunk", "Keep ratio", "Router and its layers"
DECISION, MEMORY, PAGE, COMMIT = "The deciding token", "Memory", "Page size", "Group commit"
#: A default that is further than this from the best value tried is not right.
_NEAR_BEST = at_least(0.9)
_TIME = "over 1, the default is quicker"
_QUALITY = "over 1, the default is better"


def _claim(group: str, key: str, says: str, beside: str = "", bar: Bar | None = None) -> Claim:
    return Claim("ablate", f"ratios/{key}", says, bar, beside, group=group)


def _best(group: str, key: str, says: str, missed: str) -> Claim:
    return Claim("ablate", f"ratios/{key}", says, _NEAR_BEST, missed=missed, group=group)


_MISSED = (
    "Another value that was tried is better here by more than a tenth of the default's; the "
    "picture in this bench's section shows which. No other attempt is on record."
)

ABLATE = (
    _best(
        CHUNK,
        "chunk_best_over_default_time",
        "time of a frame with the best chunk tried over that with the default; bundled model, "
        "which speaks",
        _MISSED,
    ),
    _best(
        CHUNK,
        "chunk_silent_best_over_default_time",
        "the same on a stream where nothing is said; wider model",
        _MISSED,
    ),
    _claim(
        CHUNK,
        "chunk_1_over_default_time",
        "time of a frame when frames are decided one by one, over the default's; bundled model, "
        "which speaks",
        _TIME,
    ),
    _claim(
        CHUNK,
        "chunk_silent_1_over_default_time",
        "the same on a stream where nothing is said; wider model",
        _TIME,
    ),
    _claim(
        KEEP,
        "keep_1_over_default_time",
        "time of a frame with all vision tokens kept, over the default's",
        _TIME,
    ),
    _claim(
        KEEP,
        "keep_1_over_default_cache",
        "bytes of cache a frame with all vision tokens kept, over the default's",
        "over 1, the default is smaller",
    ),
    _claim(
        KEEP,
        "keep_1_over_default_ppl",
        "perplexity of words with all vision tokens kept, over the default's",
        _QUALITY,
    ),
    _claim(
        KEEP,
        "keep_least_over_default_ppl",
        "perplexity of words with one vision token in ten kept, over the default's",
        _QUALITY,
    ),
    _claim(
        ROUTER,
        "router_none_over_default_time",
        "time of a frame of the dense model, over the default's",
        _TIME,
    ),
    _claim(
        ROUTER,
        "router_learned_over_default_time",
        "time of a frame with the `learned` router, over the default's",
        _TIME,
    ),
    _claim(
        ROUTER,
        "router_random_over_default_time",
        "time of a frame with random picks, over the default's",
        _TIME,
    ),
    _claim(
        ROUTER,
        "placement_all_over_default_time",
        "time of a frame with all layers routed, over the default's",
        "under 1, time that the dense layers between cost",
    ),
    _claim(
        ROUTER,
        "router_random_over_default_ppl",
        "perplexity of words with random picks behind the bundled weights, over the default's",
        _QUALITY,
    ),
    _claim(
        DECISION,
        "decision_free_over_default_time",
        "time of a frame with the deciding token free, over the default's",
        _TIME,
    ),
    _claim(
        DECISION,
        "decision_free_over_default_ppl",
        "perplexity of words with the deciding token free, over the default's",
        _QUALITY,
    ),
    _claim(
        DECISION,
        "decision_free_agreement",
        "share of frames at which the model with the deciding token free says what it says by "
        "default",
        "1 is always",
    ),
    _claim(
        MEMORY,
        "memory_full_over_default_late_time",
        "time of a frame late in the stream with full memory, over the default's",
        _TIME,
    ),
    _claim(
        MEMORY,
        "memory_full_over_default_held",
        "memory that a stream holds at its end with full memory, over the default's",
        "over 1, the default is smaller",
    ),
    _claim(
        MEMORY,
        "window_64_over_default_time",
        "time of a frame with a window of 64 frames, over the default's",
        "under 1, time that the longer window costs",
    ),
    _claim(
        MEMORY,
        "window_answers_as_full",
        "share of answers that are the same words as with full memory; the default",
        "more is nearer to full memory, which is often wrong",
    ),
    _claim(
        MEMORY,
        "retrieve_answers_as_full",
        "the same with 64 frames and 8 blocks looked back at for each question",
        "compare the row above",
    ),
    _best(
        PAGE,
        "page_best_over_default_time",
        "time of a frame of live streams with the best page tried, over the default's",
        _MISSED,
    ),
    _claim(
        PAGE,
        "page_16_over_default_time",
        "time of a frame of live streams with pages of 16 tokens, over the default's",
        _TIME,
    ),
    _claim(
        PAGE,
        "page_256_over_default_time",
        "the same with pages of 256 tokens",
        _TIME,
    ),
    _claim(
        PAGE,
        "page_default_pages_over_held",
        "bytes of the default's pages over the keys and values in them",
        "1 would waste nothing",
    ),
    _best(
        COMMIT,
        "commit_folder_best_over_default_p99",
        "wait for an acknowledgement, 99 in 100, with the best interval tried over the default's; "
        "a folder",
        _MISSED,
    ),
    _best(
        COMMIT,
        "commit_distant_best_over_default_p99",
        "the same on the distant store",
        _MISSED,
    ),
    _claim(
        COMMIT,
        "commit_folder_alone_over_default_p99",
        "wait for an acknowledgement, 99 in 100, when each record is written alone, over the "
        "default's; a folder",
        _TIME,
    ),
    _claim(
        COMMIT,
        "commit_distant_alone_over_default_p99",
        "the same on the distant store",
        _TIME,
    ),
    _claim(
        COMMIT,
        "commit_folder_20ms_over_default_p50",
        "median wait for an acknowledgement when the log waits 20 ms for more, over the "
        "default's; a folder",
        _TIME,
    ),
    _claim(
        COMMIT,
        "commit_distant_20ms_over_default_p50",
        "the same on the distant store",
        _TIME,
    ),
    _claim(
        COMMIT,
        "commit_folder_20ms_over_default_writes",
        "writes a second when the log waits 20 ms for more, over the default's; a folder",
        "under 1, writes that waiting saves",
    ),
    _claim(
        COMMIT,
        "commit_distant_20ms_over_default_writes",
        "the same on the distant store",
        "under 1, writes that waiting saves",
    ),
)
