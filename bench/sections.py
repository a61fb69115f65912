"""What the page of benchmarks shows of each bench beside its ratios: both sides' own figures."""

from __future__ import annotations

from bench import profile_parts
from bench.sections_ablate import ABLATIONS
from bench.sections_open import OPEN
from bench.sides import Section, Side, sides

#: Rows of the paper's table of arithmetic.
_ROWS = {
    "full": "Full",
    "mod 0.2": "MoD, r = 0.2",
    "layer skip": "layer skip",
    "early exit": "early exit",
    "all layers": "MoD in all layers, r = 0.2",
}

SECTIONS = (
    Section(
        "decode",
        "Decoding",
        "Video files to pictures on a grid of times at the model's size, through a whole Ray Data "
        "job without its model; every side takes the same files on the same cores, in turn.",
        sides(
            "times real time",
            "figures/times_real_time/KEY",
            {
                "ours": "ours, many short files",
                "ours long": "ours, one long file",
                "ffmpeg": "`ffmpeg` on all cores",
                "reference pictures": "reference pictures alone, on all cores, unscaled",
                "read_videos": "`ray.data.read_videos`",
                "read_videos alone": "`ray.data.read_videos` without options",
                "daft": "Daft",
                "nemo_curator": "NeMo Curator",
            },
        )
        + sides(
            "MiB at most",
            "figures/peak_bytes/KEY",
            {"10 min": "memory, ten minutes of video", "180 min": "memory, three hours"},
            2**-20,
        ),
        "`ffmpeg` on all cores decodes {}; more than that is possible because pictures that "
        "nothing refers to and no sample needs are not decoded",
        Side("", "figures/times_real_time/ffmpeg", "times real time"),
    ),
    Section(
        "engine",
        "The engine on a CPU",
        "One engine, random weights, one thread. The plain loop is Hugging Face's own model and "
        "cache, one frame a forward, dense; at keep ratio 1 both say the same words.",
        sides(
            "frames/s",
            "derived/KEY_frames_per_s",
            {
                "mod_bulk": "MoD, one stream",
                "dense_bulk": "dense on our engine, one stream",
                "plain_bulk": "plain loop, one stream",
                "quiet_mod": "MoD, never speaking",
                "quiet_dense": "dense on our engine, never speaking",
                "mod_live": "MoD, sixteen live streams",
                "plain_live": "plain loops, sixteen live streams",
            },
        ),
        reckons=True,
    ),
    Section(
        "large",
        "The paper's geometry on a GPU",
        "Llama-3-8B behind SigLIP-L/16 at 384 pixels with random weights in bfloat16: arithmetic "
        "does not depend on their values.",
        sides(
            "frames/s",
            "figures/bulk/frames_per_s/KEY",
            {
                "mod_quiet": "MoD, one stream, silent",
                "dense_quiet": "dense on our engine, silent",
                "mod": "MoD, with words",
                "dense": "dense on our engine, with words",
                "plain": "plain loop",
            },
        )
        + sides(
            "streams",
            "derived/live_KEY",
            {
                "mod": "MoD, live with full memory, most tried that kept up",
                "dense": "dense, the same",
                "window": "MoD with a window of 256 frames, the same",
            },
        )
        + sides(
            "s",
            "figures/training/step_seconds/KEY",
            {"mod": "MoD, a training step", "full": "dense, a training step"},
        )
        + sides(
            "GiB",
            "figures/bulk/kv_gib_per_hour/KEY",
            {"mod": "MoD, cache of an hour", "dense": "dense, cache of an hour"},
        ),
        "the vision tower, which every frame passes whole, does {} alone",
        Side("", "figures/bulk/tower_frames_per_s", "frames/s"),
    ),
    *OPEN,
    Section(
        "model",
        "Training and quality",
        "One training step on one thread, and the paper's methods trained on from one full model "
        "on the generated world; quality is teacher-forced on held-out streams. The model's "
        "[card](../mod/checkpoints/longreel-tiny/README.md) has every method.",
        sides(
            "s",
            "figures/step_seconds/KEY",
            {"bounded": "MoD, a training step", "none": "dense, a training step"},
        )
        + sides(
            "MiB",
            "figures/step_peak_bytes/KEY",
            {"bounded": "MoD, memory of a step", "none": "dense, memory of a step"},
            2**-20,
        )
        + sides(
            "",
            "figures/worst_gaps/KEY",
            {"full": "Full beside its own mean, worst metric: what chance alone does"},
        ),
        reckons=True,
    ),
    Section(
        "serve",
        "Live sessions over HTTP",
        "One cluster on one machine, whose cores the proxy, the gateway, the replicas and the "
        "clients share: figures count beside each other, not alone.",
        sides(
            "sessions",
            "derived/knee_KEY",
            {
                "ours": "ours: most sessions that kept up",
                "resend": "frames sent anew, no state",
                "hashed": "Ray Serve's consistent-hash router",
            },
        )
        + sides(
            "ms",
            "figures/overhead/ms/KEY",
            {
                "noop": "an empty POST through Ray Serve",
                "haproxy_noop": "an empty POST behind HAProxy",
                "acknowledged": "a frame until it is durable",
                "haproxy_acknowledged": "a frame until it is durable, behind HAProxy",
                "seen": "a frame until the model has seen it",
                "direct_seen": "the model alone, no service",
                "part_durable_append": "the append to the log, a part of the durable frame",
            },
        )
        + (Side("a death to the next acknowledgement", "figures/chaos/recovery_s", "s"),),
        "an empty POST of the same size through Ray Serve takes {}; what bounds the load are the "
        "machine's cores",
        Side("", "figures/overhead/ms/noop", "ms"),
    ),
    Section(
        "autoscale",
        "Autoscaling, simulated",
        "Our policy beside Ray Serve's over the same arrivals. Serve's has, for each trace and "
        "seed, the target that costs as many replica-hours as ours and, of four pairs of delays, "
        "the one with which least is late: choices that nobody has beforehand. It is a simulation, "
        "true as far as what the result's `settings` assume.",
        tuple(
            Side(
                f"{trace}, {shown}: seconds of sessions that were late",
                f"figures/{trace}/{side}/*/late_share",
                "%",
                100.0,
            )
            for trace in ("steady", "wave", "flash", "loss")
            for side, shown in (("ours", "ours"), ("default", "Ray Serve's policy"))
        ),
    ),
    Section(
        "scale",
        "Growth of a job",
        "Decoding by two workers and by one, measured; a job over a library on up to thousands of "
        "nodes, simulated from costs that were timed in the same run and what `bench/assumed.py` "
        "assumes.",
        sides(
            "s of video a second",
            "figures/passes/KEY/*/rate",
            {"1": "one worker", "2": "two workers"},
        )
        + sides(
            "% of their time used",
            "figures/simulated/as it is/KEY/efficiency",
            {size: f"{size} nodes, simulated" for size in ("10", "100", "300", "1000", "3000")},
            100.0,
        )
        + (
            Side(
                "1000 nodes with several ledgers and drivers, simulated",
                "figures/simulated/several drivers/1000/efficiency",
                "% of their time used",
                100.0,
            ),
        ),
        "two workers and the rest of a job share {}",
        Side("", "machine/cores", "cores"),
    ),
    Section(
        "profile",
        "Where a job's time goes",
        "`longreel summarize` over one long video of 720p with `longreel-tiny`, as a user runs it: "
        "from the command through the start and the end of a cluster of its own. Its processes are "
        "watched from outside and its stages timed inside.",
        tables=profile_parts.tables,
    ),
    Section(
        "weights",
        "Open weights and routers without training",
        "A dense model that skips vision tokens by routers that need no training; and the words of "
        "open models on our engine against transformers' `generate`.",
        sides(
            "% of perplexity lost",
            "figures/mean_ppl_loss/KEY/0.2",
            {
                "redundancy": "`redundancy`",
                "norm": "`norm`",
                "attention": "`attention`",
                "uniform": "`uniform`",
                "random": "`random`",
                "trained": "a router that was trained",
            },
            100.0,
        ),
    ),
    ABLATIONS,
    Section(
        "hostile",
        "Hostile clients",
        "Broken media, an API fuzzed by its own description, and a running service under all of it "
        "at once; zero is what counts.",
        (
            Side("calls to decoding processes", "figures/decoding_processes/calls", ""),
            Side("of them, processes that died", "figures/decoding_processes/died", ""),
            Side("fuzzed calls of the API", "figures/api/calls", ""),
            Side("requests of the assault", "figures/service/requests", ""),
        ),
    ),
    Section(
        "flops",
        "The cost model against the paper's tables",
        "Multiply-accumulates and cache bytes from the geometry alone; nothing depends on the "
        "machine.",
        tuple(
            Side(
                f"{what}: {shown}", f"figures/tera_macs/{row}/{side}", "TFLOPs as the paper counts"
            )
            for row, what in _ROWS.items()
            for side, shown in (("ours", "our cost model"), ("paper", "the paper"))
        ),
    ),
)


def section_of(bench: str) -> Section:
    """How a bench is shown; of one that is not known here, its ratios alone."""
    known = next((each for each in SECTIONS if each.bench == bench), None)
    return known or Section(bench, bench.replace("_", " ").capitalize(), "")
