"""What the page of benchmarks shows of open models at their full size."""

from __future__ import annotations

from bench.names import of_model
from bench.sides import Section, Side, sides
from infra.openmodels.published import PUBLISHED, Published


def _section(model: str, published: Published) -> Section:
    return Section(
        of_model("large", model),
        f"{published.title} on a GPU",
        f"The published geometry of `{published.name}` with random weights in bfloat16, through "
        "the layout and the engine that a checkpoint is served by; 2 frames a second, asked every "
        "five seconds what happens where it is not silent.",
        sides(
            "frames/s",
            "figures/bulk/frames_per_s/KEY",
            {
                "mod_quiet": "routed, one stream, silent",
                "dense_quiet": "dense on our engine, silent",
                "mod": "routed, asked",
                "dense": "dense on our engine, asked",
                "plain": "plain loop, silent",
            },
        )
        + sides(
            "GiB",
            "figures/bulk/kv_gib_per_hour/KEY",
            {"mod": "routed, keys and values of an hour", "dense": "dense, the same"},
        )
        + (
            Side(
                "arithmetic of the decoder, routed over dense", "figures/bulk/cost_model_ratio", ""
            ),
            Side("weights", "figures/model/weights_gib", "GiB"),
            Side("window of a live stream", "settings/live/window_frames", "frames"),
        )
        + sides(
            "GiB",
            "figures/bulk/above_held_gib/KEY",
            {
                "mod_quiet": "routed, memory of a step beside weights and pages",
                "dense_quiet": "dense, the same",
            },
        ),
        "the vision tower, which every frame passes whole, does {} alone",
        Side("", "figures/bulk/tower_frames_per_s", "frames/s"),
        absent="There is no run on a GPU on record yet",
    )


#: In the order of ``PUBLISHED``.
OPEN: tuple[Section, ...] = tuple(_section(*each) for each in PUBLISHED.items())
