"""Which rows of an earlier run are tried again, and that they leave every file at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from actors.rowfiles import write_rows
from actors.rows import read_rows
from longreel.errors import UNUSABLE_ACCESS, StorageError, VideoError
from longreel.schemas import FAILED, OK, PARTIAL, PROBE, SEGMENTS, VIDEOS
from pipelines.retries import Retry, drop_retried, to_retry

NOTHING = Retry(frozenset(), frozenset())


def probe(video: str, error: str | None = None, uri: str = "u") -> dict[str, Any]:
    return {"video_id": video, "uri": uri, "error": error, "n_segments": 0 if error else 2}


def segment(name: str, error: str, video: str = "v") -> dict[str, Any]:
    return {"segment_id": name, "video_id": video, "error": error}


def failed(video: str, error: str, n_segments: int = 0, uri: str = "u") -> dict[str, Any]:
    return {"video_id": video, "uri": uri, "error": error, "n_segments": n_segments}


@pytest.mark.parametrize(
    "error",
    [
        "Unreachable: cannot read u: no answer (tried 5 times)",
        "SlowDown: x",
        "InternalError: x",
        "AccessDenied: x",
        "NotFound: x",
        "EIO: x",
        "ModelUnavailable: x",
        "ModelError: OutOfMemoryError: x",
    ],
)
def test_what_the_store_or_the_model_failed_at_is_tried_again(error: str) -> None:
    """Guards against a bad hour of somebody else's that a video never recovers from."""
    assert to_retry([probe("v")], [segment("s", error)], []) == Retry(
        frozenset({"s"}), frozenset({"v"})
    )


@pytest.mark.parametrize("kind", sorted(VideoError.KINDS))
def test_the_file_s_own_faults_stay(kind: str) -> None:
    """Guards against broken videos decoded again by every run."""
    error = str(VideoError(kind, "x: Unreachable: y", "byte 5"))
    assert to_retry([probe("v")], [segment("s", error)], [failed("v", error, 1)]) == NOTHING


def test_a_video_too_large_to_join_is_tried_again() -> None:
    """Guards against a video that has no summary for ever, since one machine was too small."""
    died = "WorkerDied: joining its segments ended its process 8 times"
    assert to_retry([probe("v")], [], [failed("v", died, 2)]) == Retry(frozenset(), frozenset("v"))
    assert to_retry([probe("v", "Unreachable: y")], [], [failed("v", died, 2)]) == NOTHING


def test_only_videos_that_can_be_opened_now_are_tried_again() -> None:
    """Guards against rows given up for nothing while the store is still away."""
    gone = segment("s", "NotFound: x")
    assert to_retry([], [gone], []) == NOTHING
    assert to_retry([probe("v", "NotFound: y")], [gone], [failed("v", "NotFound: x", 1)]) == NOTHING
    assert to_retry([probe("other", uri="w")], [gone], []) == NOTHING


@pytest.mark.parametrize(
    ("today", "again"),
    [
        (probe("v", "NotFound: x"), False),
        (probe("v", "Unreachable: y"), True),
        (probe("w", "NotFound: x"), True),
        (probe("v"), True),
        (probe("w", "NotFound: x", uri="another"), False),
    ],
)
def test_a_video_that_never_opened_has_the_row_of_today(today: dict[str, Any], again: bool) -> None:
    """Guards against two rows for one source, and files rewritten by runs that change nothing."""
    retry = to_retry([today], [], [failed("v", "NotFound: x")])
    assert retry == (Retry(frozenset(), frozenset({"v"})) if again else NOTHING)


def test_a_failed_version_leaves_with_its_segments() -> None:
    """Guards against rows of a version that nobody can name any more."""
    old = [segment("s", "NotFound: x", "old"), segment("t", "Damaged: x", "old")]
    retry = to_retry([probe("new", "NotFound: y")], old, [failed("old", "NotFound: x", 2)])
    assert retry == Retry(frozenset({"s", "t"}), frozenset({"old"}))


def test_rows_leave_the_files_and_nothing_else_does(tmp_path: Path) -> None:
    """Guards against a row that stands twice after the retry, or good rows lost with it."""

    def rows(schema: Any, *given: dict[str, Any]) -> list[dict[str, Any]]:
        return [{**dict.fromkeys(schema.names), **row} for row in given]

    dest = str(tmp_path)
    transient, own = "Unreachable: x", "Damaged: x"
    write_rows(
        f"{dest}/segments",
        rows(
            SEGMENTS,
            {"segment_id": "a0", "video_id": "a", "uri": "a", "status": OK},
            {"segment_id": "a1", "video_id": "a", "uri": "a", "status": FAILED, "error": transient},
            {"segment_id": "b0", "video_id": "b", "uri": "b", "status": FAILED, "error": own},
        ),
        SEGMENTS,
    )
    kept = write_rows(
        f"{dest}/segments",
        rows(SEGMENTS, {"segment_id": "c0", "video_id": "c", "uri": "c", "status": PARTIAL}),
        SEGMENTS,
    )
    before = Path(kept).stat()
    write_rows(
        f"{dest}/videos",
        rows(
            VIDEOS,
            {"video_id": "a", "uri": "a", "status": PARTIAL, "error": transient, "n_segments": 2},
            {"video_id": "b", "uri": "b", "status": FAILED, "error": own, "n_segments": 1},
            {"video_id": "d", "uri": "d", "status": FAILED, "error": transient, "n_segments": 0},
        ),
        VIDEOS,
    )
    write_rows(
        f"{dest}/_longreel/videos",
        rows(PROBE, probe("a", uri="a"), probe("b", uri="b"), probe("d", transient, uri="d")),
        PROBE,
    )
    for _ in range(2):
        drop_retried(dest, [probe(name, uri=name) for name in "abcd"], "segments")
        segments = read_rows(f"{dest}/segments", SEGMENTS)
        assert sorted(row["segment_id"] for row in segments) == ["a0", "b0", "c0"]
        assert [row["video_id"] for row in read_rows(f"{dest}/videos", VIDEOS)] == ["b"]
        probed = read_rows(f"{dest}/_longreel/videos", PROBE)
        assert [row["video_id"] for row in probed] == ["a", "b"]
    assert Path(kept).stat().st_mtime_ns == before.st_mtime_ns


def test_unusable_access_is_no_video_s_fault() -> None:
    """Guards against a credential failure that is written as a finished row."""
    assert not UNUSABLE_ACCESS & VideoError.KINDS
    assert StorageError("ExpiredToken", "x").kind in UNUSABLE_ACCESS
