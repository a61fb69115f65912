"""What the page says of the ablations: the defaults, and what each knob's figures do not show."""

from __future__ import annotations

from collections.abc import Mapping

from bench.claims_ablate import CHUNK, COMMIT, DECISION, KEEP, MEMORY, PAGE, ROUTER
from bench.sides import Section, Side

#: What stands above each knob's figures, which are of the result itself.
GROUPS: Mapping[str, str] = {
    CHUNK: "Frames that wait are decided together. Where nothing is said, a larger chunk costs "
    "less, but other streams wait for its longest step: "
    "{figures/chunk_silent/values/1/longest_step_ms as .0f} ms frame by frame, "
    "{figures/chunk_silent/values/32/longest_step_ms as .0f} ms with the default of 32. Where the "
    "model speaks, the frames behind its words have to run again: "
    "{figures/chunk/values/32/in_vain as .0%} of those that ran were in vain, which can take back "
    "all that a chunk gains. Words do not depend on it.",
    KEEP: "The share of a frame's vision tokens that run in a routed layer; the default is 0.2. "
    "Time and cache are what it buys. Quality cannot be concluded from here: the bundled model was "
    "trained at 0.2 and runs the other ratios without training for them. What training with each "
    "gives is in the model's [card](../mod/checkpoints/longreel-tiny/README.md).",
    ROUTER: "Which router picks the tokens matters little for time; how many layers are routed "
    "does. The defaults here are those of `longreel-tiny`, `bounded` in every other layer (a "
    "configuration that names no router has `learned`). Quality cannot choose a router here: "
    "without training anew, random picks behind the same weights are level with the trained "
    "router's. Where each method was trained by itself, in "
    "`bench.model`, random picks lost {figures/trained/mean_losses/random 0.2/lm_ppl as .1%} of "
    "perplexity and MoD {figures/trained/mean_losses/mod 0.2/lm_ppl as .1%} with every other layer "
    "routed (below zero is a gain), "
    "{figures/trained/mean_losses/random all 0.2/lm_ppl as .1%} and "
    "{figures/trained/mean_losses/mod all 0.2/lm_ppl as .1%} with all of them routed: dense layers "
    "between matter more than the choice ([more](#training-and-quality)).",
    DECISION: "A frame's last vision token, at which the model decides whether to speak, always "
    "runs by default. Free, it competes with the frame's others for a place. The model was trained "
    "with it kept; what one would lose that was trained with it free was not measured.",
    MEMORY: "A live session remembers the last 256 frames by default. The streams here had "
    "{settings/stream_frames as .0f} frames, so that the default had hardly begun to forget and "
    "costs nearly what full memory does; what a window saves grows with the stream. Answers show "
    "no order of the memories: there were {settings/streams as .0f} streams with seven questions "
    "each, and even full memory answered {figures/memory/values/full/beginning as .0%} of those "
    "about the beginning rightly.",
    PAGE: "The cache is kept in pages of 32 tokens on a CPU. Small pages waste less of what they "
    "hold, large ones are fewer to look up: time tells none from another, and pages of 256 take "
    "{figures/page/values/256/pages_over_held as .1f} times the bytes in them.",
    COMMIT: "The session log waits for nothing by default: what arrives while a batch is written "
    "is the next batch. `alone` writes record by record, `20ms` waits that long for more. "
    "{settings/commit/sessions as .0f} sessions send {settings/commit/fps as .0f} frames a second "
    "for {settings/commit_s as .1f} s a round, so that 99 in 100 is nearly the slowest of all. The "
    "distant store is a folder that takes {settings/commit/put_s as .2f} s longer for a write and "
    "{settings/commit/head_s as .2f} s for a look at who owns the log, which is assumed.",
}

ABLATIONS = Section(
    "ablate",
    "Ablations",
    "Is each default right, and what does its knob trade? One knob is turned at a time while "
    "all others stand at their defaults: chunks of at most 32 frames, a keep ratio of 0.2, the "
    "`bounded` router in every other layer, the deciding token always kept, a window of 256 "
    "frames, pages of 32 tokens, a log that waits for nothing. All of it is on a CPU: a GPU "
    "has larger chunks and pages by default, which are not tried here. A bar stands only where "
    "one figure decides: the best value tried is to need at least nine tenths of what the "
    "default does (1 where the default is the best). Time and cache of keep ratios, routers "
    "and pages are of a wider model with random weights that never speaks; words, answers and "
    "memory are of the bundled model, which was trained with the defaults, so that other "
    "values lack the training they would need; `n` is rounds, of perplexity parts of the held-out "
    "streams, of memory streams.",
    (
        Side("a frame by default, speaking", "figures/chunk/values/32/ms_a_frame", "ms"),
        Side("a frame by default, silent", "figures/keep/values/0.2/ms_a_frame", "ms"),
        Side("cache of a silent frame", "figures/keep/values/0.2/kib_a_frame", "KiB"),
        Side(
            "perplexity of words by default, over parts of the held-out streams",
            "figures/keep_quality/values/0.2/lm_ppl",
            "",
        ),
        Side(
            "memory that a stream holds at its end by default",
            "figures/memory/values/window 256/held_mib",
            "MiB",
        ),
        Side(
            "wait for an acknowledgement by default, 99 in 100; a folder",
            "figures/commit_folder/values/0 ms/p99_ms",
            "ms",
        ),
        Side("the same on the distant store", "figures/commit_distant/values/0 ms/p99_ms", "ms"),
    ),
    groups=GROUPS,
)
