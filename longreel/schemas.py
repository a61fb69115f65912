"""Arrow schemas of everything a job writes, and the values of ``status``.

All times are seconds on the video's own clock, which starts at its first shown frame.
"""

from __future__ import annotations

import pyarrow as pa

OK = "ok"
PARTIAL = "partial"
FAILED = "failed"

NARRATIONS = pa.list_(pa.struct([("time_s", pa.float64()), ("text", pa.string())]))
KEYFRAMES = pa.list_(
    pa.struct(
        [
            ("time_s", pa.float64()),
            ("score", pa.float32()),
            ("jpeg", pa.binary()),
            ("uri", pa.string()),
        ]
    )
)
CHAPTERS = pa.list_(
    pa.struct(
        [
            ("start_s", pa.float64()),
            ("end_s", pa.float64()),
            ("title", pa.string()),
            ("summary", pa.string()),
        ]
    )
)
#: The tree of summaries: each node after its parent, whose index it gives; the root has none.
OUTLINE = pa.list_(
    pa.struct(
        [
            ("parent", pa.int32()),
            ("start_s", pa.float64()),
            ("end_s", pa.float64()),
            ("text", pa.string()),
        ]
    )
)

_PROVENANCE = [
    ("model", pa.string()),
    ("model_revision", pa.string()),
    ("prompt_hash", pa.string()),
    ("code_version", pa.string()),
    ("keep_ratio", pa.float32()),
    ("fps", pa.float64()),
]
_COST = [
    ("vision_tokens", pa.int64()),
    ("processed_token_layers", pa.int64()),
    ("kv_bytes", pa.int64()),
    ("decode_s", pa.float64()),
    ("model_s", pa.float64()),
]

#: One row per segment, written before any work: the plan is the job.
PLAN = pa.schema(
    [
        ("segment_id", pa.string()),
        ("video_id", pa.string()),
        ("uri", pa.string()),
        ("etag", pa.string()),
        ("size_bytes", pa.int64()),
        ("segment_index", pa.int32()),
        ("n_segments", pa.int32()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("first_index", pa.int64()),  # grid indices [first_index, end_index): t = index / fps
        ("end_index", pa.int64()),
        ("duration_s", pa.float64()),
        ("origin_pts", pa.int64()),  # first shown frame, in ticks of the stream's time base
        ("fps", pa.float64()),
    ]
)

#: One row per video, what the probe found; a video that cannot be opened has only an error.
PROBE = pa.schema(
    [
        ("video_id", pa.string()),
        ("uri", pa.string()),
        ("etag", pa.string()),
        ("size_bytes", pa.int64()),
        ("duration_s", pa.float64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("source_fps", pa.float64()),
        ("codec", pa.string()),
        ("n_segments", pa.int32()),
        ("error", pa.string()),
    ]
)

#: ``DEST/segments/``: one row per planned segment.
SEGMENTS = pa.schema(
    [
        ("job_id", pa.string()),
        ("segment_id", pa.string()),
        ("video_id", pa.string()),
        ("uri", pa.string()),
        ("segment_index", pa.int32()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("n_frames", pa.int32()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("narrations", NARRATIONS),
        ("summary", pa.string()),
        ("keyframes", KEYFRAMES),
        *_PROVENANCE,
        *_COST,
        ("attempt", pa.int32()),
    ]
)

#: ``DEST/videos/``: one row per video named by the sources, failed ones included.
VIDEOS = pa.schema(
    [
        ("job_id", pa.string()),
        ("video_id", pa.string()),
        ("uri", pa.string()),
        ("etag", pa.string()),
        ("size_bytes", pa.int64()),
        ("duration_s", pa.float64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("source_fps", pa.float64()),
        ("codec", pa.string()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("n_segments", pa.int32()),
        ("n_failed_segments", pa.int32()),
        ("n_frames", pa.int64()),
        ("summary", pa.string()),
        ("chapters", CHAPTERS),
        ("outline", OUTLINE),
        ("keyframes", KEYFRAMES),
        *_PROVENANCE,
        *_COST,
    ]
)
