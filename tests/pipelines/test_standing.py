"""How far a job is, counted from its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from actors.rowfiles import write_rows
from longreel.schemas import FAILED, OK, PARTIAL, PLAN, PROBE, SEGMENTS, VIDEOS
from pipelines.standing import standing


def put(folder: Path, schema: pa.Schema, *told: dict[str, Any]) -> None:
    empty: dict[str, Any] = dict.fromkeys(schema.names)
    write_rows(str(folder), [{**empty, **row} for row in told], schema)


def test_no_plan_yet(tmp_path: Path) -> None:
    """Guards against an error, or a share of nothing, while a job still plans."""
    assert standing(str(tmp_path)) is None
    assert standing(str(tmp_path / "none")) is None


def test_rows_against_the_plan(tmp_path: Path) -> None:
    """Guards against rows counted twice or of what is no longer planned, and totals that move."""
    plan = [
        {"segment_id": f"{video}{i}", "video_id": video, "start_s": 4.0 * i, "end_s": 4.0 * i + 4}
        for video in ("a", "b", "old")
        for i in range(2)
    ]
    put(tmp_path / "_longreel" / "plan", PLAN, *plan)
    probes = [{"video_id": video} for video in ("a", "b", "empty")]
    put(tmp_path / "_longreel" / "videos", PROBE, *probes)
    put(
        tmp_path / "segments",
        SEGMENTS,
        {"segment_id": "a0", "status": OK, "n_frames": 8, "start_s": 0.0, "end_s": 4.0},
        {"segment_id": "a1", "status": PARTIAL, "n_frames": 3, "start_s": 4.0, "end_s": 8.0},
        {"segment_id": "old0", "status": OK, "n_frames": 8},
    )
    put(tmp_path / "videos", VIDEOS, {"video_id": "empty", "status": FAILED})
    found = standing(str(tmp_path))
    assert found is not None
    assert (found.n_segments, found.n_videos, found.total_video_seconds) == (4, 3, 16.0)
    assert found.segments == {OK: 1, PARTIAL: 1}
    assert found.videos == {FAILED: 1}
    assert (found.frames, found.video_seconds) == (11, 8.0)
