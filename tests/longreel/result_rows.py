"""Rows of a small finished job, as they come back from Parquet, with real JPEGs."""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa
from PIL import Image

from longreel.schemas import FAILED, OK, PARTIAL, SEGMENTS, VIDEOS

Row = dict[str, Any]

PROVENANCE = {
    "job_id": "job-1",
    "model": "model-8b",
    "model_revision": "3f1c9a0d",
    "prompt_hash": "b1946ac9",
    "code_version": "0.1.0",
    "keep_ratio": 0.2,
    "fps": 2.0,
}
TRUNCATED = "Truncated: the data ends at 19.5 s (byte 1744310 of 2678405)"


def jpeg(shade: int = 90, width: int = 320, height: int = 180) -> bytes:
    """Return a JPEG of a plain gradient."""
    out = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).point(lambda v: (v + shade) % 256).save(
        out, "JPEG"
    )
    return out.getvalue()


def segment(video_id: str, index: int, start: float, end: float, **other: Any) -> Row:
    """Return one segment row, ok unless ``other`` says otherwise."""
    return {
        "segment_id": f"{video_id}-{index}",
        "video_id": video_id,
        "uri": f"s3://bucket/{video_id}.mp4",
        "segment_index": index,
        "start_s": start,
        "end_s": end,
        "n_frames": round((end - start) * 2),
        "status": OK,
        "narrations": [],
        "keyframes": [],
        "vision_tokens": 1000,
        "kv_bytes": 1 << 20,
        "decode_s": 0.5,
        "model_s": 1.5,
        "attempt": 1,
        **PROVENANCE,
        **other,
    }


def video(video_id: str, **other: Any) -> Row:
    """Return one video row of 30 s, ok unless ``other`` says otherwise."""
    return {
        "video_id": video_id,
        "uri": f"s3://bucket/{video_id}.mp4",
        "size_bytes": 2_678_405,
        "duration_s": 30.0,
        "width": 854,
        "height": 480,
        "source_fps": 24.0,
        "codec": "h264",
        "status": OK,
        "n_segments": 3,
        "n_failed_segments": 0,
        "n_frames": 60,
        "summary": f"What happens in {video_id}.",
        "chapters": [],
        "keyframes": [],
        "vision_tokens": 3000,
        "processed_token_layers": 30_000,
        "kv_bytes": 3 << 20,
        "decode_s": 1.5,
        "model_s": 4.5,
        **PROVENANCE,
        **other,
    }


def stored(videos: list[Row], segments: list[Row]) -> tuple[list[Row], list[Row]]:
    """Return the rows as they read back from Arrow: every column there, None where not set."""
    return (
        pa.Table.from_pylist(videos, schema=VIDEOS).to_pylist(),
        pa.Table.from_pylist(segments, schema=SEGMENTS).to_pylist(),
    )


def job() -> tuple[list[Row], list[Row]]:
    """Return an ok, a partial and a failed video with their segments."""
    keyframes = [{"time_s": t, "score": 0.5, "jpeg": jpeg(int(t))} for t in (3.0, 4.5, 24.0)]
    videos = [
        video(
            "good",
            keyframes=keyframes,
            chapters=[{"start_s": 0.0, "end_s": 12.0, "title": "Opening", "summary": "Snow."}],
        ),
        video("cut", status=PARTIAL, error=TRUNCATED, n_failed_segments=1, n_frames=39),
        {
            **dict.fromkeys(VIDEOS.names),
            "job_id": "job-1",
            "video_id": "bad",
            "uri": "s3://bucket/bad.mov",
            "size_bytes": 48,
            "status": FAILED,
            "error": "NoVideoStream: 1 stream, audio (aac)",
        },
    ]
    segments = [
        segment(
            "good",
            i,
            i * 10.0,
            i * 10.0 + 10,
            narrations=[{"time_s": i * 10.0 + t, "text": f"Event {i}{t}"} for t in (1.5, 6.0, 8.0)],
        )
        for i in range(3)
    ]
    segments += [
        segment("cut", 0, 0.0, 10.0, narrations=[{"time_s": 2.0, "text": "Before the damage"}]),
        segment("cut", 1, 10.0, 20.0, status=PARTIAL, n_frames=19, error=TRUNCATED),
        segment("cut", 2, 20.0, 30.0, status=FAILED, n_frames=0, error=TRUNCATED),
    ]
    return stored(videos, segments)
