"""Claims about jobs and the service: decoding, growth, live sessions, scaling, hostile clients."""

from __future__ import annotations

from bench.bars import Claim, at_least, at_most

DECODE = (
    Claim(
        "decode",
        "ratios/over_ffmpeg",
        "decoding through Ray Data over the `ffmpeg` command on all cores, same sampling and "
        "scaling",
        at_least(1.2),
        headline="decoding, over `ffmpeg` on all cores",
    ),
    Claim(
        "decode",
        "ratios/over_read_videos",
        "the same over `ray.data.read_videos` with its own sampling and scaling",
        at_least(8),
        headline="decoding, over `ray.data.read_videos`",
        missed="`read_videos` decodes {figures/times_real_time/read_videos as .0f} times as fast "
        "as real time here when it is told to sample and to scale; called without options it is "
        "the row `over_read_videos_alone`. Eight times the former would be "
        "{derived/read_videos_bar_over_ffmpeg as .1f} times what `ffmpeg` decodes on all cores, "
        "and {derived/read_videos_bar_over_references as .1f} times what all cores decode of the "
        "pictures alone that others refer to, which an exact side has to decode, without scaling "
        "or handing on any. Tried: pictures that nothing refers to and no sample needs are "
        "not decoded at all, and segments decode side by side.",
    ),
    Claim(
        "decode",
        "ratios/over_daft",
        "the same over Daft's `read_video_frames`",
        at_least(3),
        headline="decoding, over Daft",
        missed="Daft decodes as fast as {derived/daft_over_ffmpeg as .2f} of `ffmpeg` on all cores "
        "here, one file after the other, since several at once wait for each other for ever on two "
        "cores. Three times as fast would be {derived/daft_bar_over_ffmpeg as .1f} times what "
        "`ffmpeg` decodes, and {derived/daft_bar_over_references as .1f} times what all cores "
        "decode of the pictures alone that others refer to. Tried: the same as for the row above.",
    ),
    Claim(
        "decode",
        "ratios/over_nemo_curator",
        "the same over NeMo Curator's frame extraction, which is spared the scaling",
        beside="more is better",
    ),
    Claim(
        "decode",
        "ratios/over_read_videos_alone",
        "many short files by us over one by `ray.data.read_videos` without options, which takes "
        "every picture at full size",
        beside="more is better",
    ),
    Claim(
        "decode",
        "ratios/one_long_over_many_short",
        "decoding of one long video over that of as much in many short ones",
        at_least(0.7),
        headline="one long video, over many short ones",
    ),
    Claim(
        "decode",
        "ratios/memory_3h_over_10min",
        "peak memory of a job over one video of three hours, over that of ten minutes",
        at_most(1.2),
    ),
    Claim(
        "decode",
        "ratios/bytes_over_object",
        "bytes that the store sends for planning and decoding, over the object's",
        at_most(1.15),
    ),
)

SCALE = (
    Claim(
        "scale",
        "ratios/speedup_2_workers",
        "decoding of two workers over that of one",
        beside="2 would be all of it",
        headline="two workers over one",
    ),
    Claim(
        "scale",
        "ratios/simulated_efficiency_1000_nodes",
        "share of 1000 nodes' time that one job over 10 000 hours uses (simulated)",
        beside="more is better",
    ),
)

PROFILE = (
    Claim(
        "profile",
        "ratios/video_seconds_per_second",
        "seconds of video that a whole job gets through in one, from the command to its end",
        beside="more is better",
        headline="a whole job over one video, times real time",
    ),
    Claim(
        "profile",
        "ratios/video_seconds_per_cpu_second",
        "seconds of video for each second of processor time, over all processes",
        beside="more is better",
    ),
    Claim(
        "profile",
        "ratios/bytes_over_object",
        "bytes that the whole job reads of the video, over the video's own",
        beside="1 would be each byte once",
    ),
    Claim(
        "profile",
        "ratios/after_over_before",
        "wall time of the job over that of the version before, in turn",
        beside="less is better",
    ),
    Claim(
        "profile",
        "ratios/cpu_after_over_before",
        "processor time of the job over that of the version before, in turn",
        beside="less is better",
    ),
)

SERVE = (
    Claim(
        "serve",
        "ratios/knee_over_resend",
        "live sessions of {settings/session_s as .0f} s that keep up over those of a service that "
        "holds no state and is sent each stream's frames anew",
        at_least(3),
        headline="live sessions, over re-sending",
    ),
    Claim(
        "serve",
        "derived/knee_over_hashed",
        "the same over a service behind Ray Serve's consistent-hash router that keeps sessions in "
        "a replica's memory alone and writes nothing down",
        beside="what durability costs",
        headline="live sessions, over ones that nothing outlives",
    ),
    Claim(
        "serve",
        "ratios/overhead_over_noop",
        "what HTTP, routing and the durable log add to one frame, over an empty POST through Ray "
        "Serve",
        at_most(1.5),
        headline="what a durable frame costs, over an empty POST",
        missed="An empty POST takes {figures/overhead/ms/noop as .1f} ms here, a frame "
        "{figures/overhead/ms/acknowledged as .1f} ms until it is acknowledged. Of that the hop "
        "from the gateway to its session's replica takes {figures/overhead/ms/part_replica_hop as "
        ".1f} ms, which Ray Serve takes itself for each call of a deployment, decoding the frame "
        "{figures/overhead/ms/part_decode as .1f} ms and writing it down "
        "{figures/overhead/ms/part_durable_append as .1f} ms, which an empty POST does not do. "
        "Tried: acknowledging before the model has seen the frame, one append for all frames that "
        "wait, calls by a connection of the two processes, pinned to a replica without a choice, "
        "and the gateway's and the replica's calls on Ray Serve's own loop. Much of a frame's time "
        "is the proxy's, so the images run HAProxy in its place (the row below): an empty POST "
        "takes {figures/overhead/ms/haproxy_noop as .1f} ms there, a frame "
        "{figures/overhead/ms/haproxy_acknowledged as .1f} ms.",
    ),
    Claim(
        "serve",
        "ratios/haproxy_overhead_over_noop",
        "the same added behind HAProxy, as the images run it, over that same empty POST through "
        "Ray Serve's own proxy, which it takes the place of",
        beside="what the images' proxy is worth; the row below has HAProxy on both sides",
    ),
    Claim(
        "serve",
        "derived/haproxy_overhead",
        "the same added behind HAProxy, over an empty POST behind HAProxy",
        at_most(1.5),
        headline="what a durable frame costs behind HAProxy, over an empty POST behind it",
        missed="In milliseconds it is less than behind Ray Serve's own proxy "
        "({figures/overhead/ms/haproxy_acknowledged as .1f} instead of "
        "{figures/overhead/ms/acknowledged as .1f}); but an empty POST takes "
        "{figures/overhead/ms/haproxy_noop as .1f} there, and what a frame takes besides does not "
        "shrink with the proxy: the hop to its session's replica, decoding and writing it down, as "
        "in the row above, and the gateway's own share of reading a body of "
        "{figures/overhead/body_bytes as .0f} bytes.",
    ),
    Claim(
        "serve",
        "ratios/moved_on_scale_up",
        "share of live sessions that change their replica when one is added",
        at_most(0),
        headline="sessions that move when a replica is added",
    ),
    Claim(
        "serve",
        "ratios/moved_on_scale_up_consistent_hash",
        "the same with Ray Serve's consistent-hash router",
        beside="compare the row above",
    ),
    Claim(
        "serve",
        "ratios/chaos_lost_items",
        "acknowledged frames and questions that were lost while replicas and the directory were "
        "killed",
        at_most(0),
        headline="acknowledged inputs lost to kills",
    ),
    Claim(
        "serve",
        "ratios/chaos_transcript_mismatches",
        "streams whose words differ from an undisturbed run's",
        at_most(0),
    ),
)

_TRACES = {
    "steady": "a steady load whose kinds of sessions shift",
    "wave": "a day",
    "flash": "a flash crowd",
    "loss": "losses of replicas",
}

AUTOSCALE = tuple(
    claim
    for trace, what in _TRACES.items()
    for claim in (
        Claim(
            "autoscale",
            f"ratios/{trace}_violations_over_default",
            "late seconds of sessions over those under Ray Serve's policy with its best delays: "
            f"{what} (simulated)",
            beside="less is better",
            headline="late sessions in a flash crowd, over Ray Serve's policy (simulated)"
            if trace == "flash"
            else "",
        ),
        Claim(
            "autoscale",
            f"ratios/{trace}_replica_hours_over_default",
            f"replica-hours over those of Ray Serve's policy: {what}",
            beside="alike by choice of Serve's target",
        ),
    )
)

HOSTILE = tuple(
    Claim("hostile", f"ratios/{key}", says, at_most(0), headline=headline)
    for key, says, headline in (
        (
            "replica_deaths",
            "replicas, gateways and proxies that died of what was sent",
            "replicas that die of hostile input",
        ),
        ("private_addresses_fetched", "addresses inside that were fetched for a client", ""),
        ("cross_key_reads", "things of one key that another reached", ""),
        ("answers_that_are_no_4xx", "answers to broken input that are neither 2xx nor 4xx", ""),
    )
)
