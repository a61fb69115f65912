"""The ledger writes each row once and whole, and its progress adds up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from actors import objects, rowfiles
from actors.ledger import Ledger
from actors.progress import Progress
from longreel.errors import StorageError
from longreel.schemas import SEGMENTS, VIDEOS


def _row(number: int, **fields: Any) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(SEGMENTS.names)
    row |= {"segment_id": f"s{number}", "uri": "/v", "status": "ok", "n_frames": 3}
    return row | {"start_s": 0.0, "end_s": 2.0, "keyframes": []} | fields


def _read(folder: Path) -> list[dict[str, Any]]:
    return [row for file in folder.glob("*.parquet") for row in pq.read_table(file).to_pylist()]


def test_a_row_sent_twice_is_written_once(tmp_path: Path) -> None:
    """Guards against a retried task doubling its row."""
    ledger = Ledger(str(tmp_path), Progress(n_segments=3), {"s0"})
    for number in (0, 1, 1, 2, 1):
        ledger.add_segment(_row(number))
    ledger.flush()
    ledger.flush()
    assert sorted(row["segment_id"] for row in _read(tmp_path / "segments")) == ["s1", "s2"]
    assert dict(ledger.progress().segments) == {"ok": 2}
    assert ledger.progress().video_seconds == 4.0
    assert ledger.progress().frames == 6


def test_files_have_the_schema_even_when_a_column_is_all_null(tmp_path: Path) -> None:
    """Guards against files that cannot be read together."""
    ledger = Ledger(str(tmp_path), Progress(), set())
    ledger.add_segment(_row(1))
    ledger.add_video(dict.fromkeys(VIDEOS.names) | {"video_id": "v", "status": "failed"})
    ledger.flush()
    for name, schema in (("segments", SEGMENTS), ("videos", VIDEOS)):
        (file,) = (tmp_path / name).glob("*.parquet")
        assert pq.read_schema(file).equals(schema)


def test_rows_are_written_by_count_and_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against memory that grows with the job, and against a file per row."""
    monkeypatch.setattr(rowfiles, "MAX_ROWS", 10)
    ledger = Ledger(str(tmp_path), Progress(), set())
    for number in range(25):
        ledger.add_segment(_row(number))
    assert len(list((tmp_path / "segments").glob("*.parquet"))) == 2
    monkeypatch.setattr(rowfiles, "MAX_BYTES", 1000)
    picture = {"time_s": 0.0, "score": 1.0, "jpeg": bytes(2000), "uri": None}
    ledger.add_segment(_row(99, keyframes=[picture]))
    assert len(_read(tmp_path / "segments")) == 26


def test_attempts_are_counted_per_segment(tmp_path: Path) -> None:
    """Guards against rows that do not say how often their segment was tried."""
    ledger = Ledger(str(tmp_path), Progress(), set())
    assert [ledger.begin(s) for s in ("a", "b", "a", "a")] == [1, 1, 2, 3]


def test_decodings_that_did_not_end_are_counted_per_segment(tmp_path: Path) -> None:
    """Guards against a segment that is decoded for ever because others began in between."""
    ledger = Ledger(str(tmp_path), Progress(), {"b"})
    assert [ledger.enter(s) for s in ("a", "b", "a")] == [0, 0, 1]
    ledger.leave("a")
    ledger.leave("b")
    assert [ledger.enter(s) for s in ("a", "b", "c")] == [1, 0, 0]


def test_a_failed_write_keeps_the_rows(tmp_path: Path) -> None:
    """Guards against rows lost when the output fails for a while."""
    blocked = tmp_path / "segments"
    blocked.write_text("in the way")
    ledger = Ledger(str(tmp_path), Progress(), set())
    ledger.add_segment(_row(1))
    with pytest.raises(Exception, match="segments"):
        ledger.flush()
    blocked.unlink()
    ledger.flush()
    assert [row["segment_id"] for row in _read(blocked)] == ["s1"]


def test_a_write_that_went_through_without_an_answer_repeats_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against rows twice in a job that ends well: its next attempt wrote another file."""
    ledger = Ledger(str(tmp_path), Progress(), set())
    ledger.add_segment(_row(1))

    def unanswered(uri: str, data: bytes) -> None:
        objects.write_bytes(uri, data)
        raise StorageError("RequestTimeout", "no answer came")

    with monkeypatch.context() as patch:
        patch.setattr(rowfiles, "write_bytes", unanswered)
        with pytest.raises(StorageError):
            ledger.flush()
    ledger.add_segment(_row(2))
    ledger.flush()
    ledger.add_segment(_row(3))
    ledger.flush()
    assert sorted(row["segment_id"] for row in _read(tmp_path / "segments")) == ["s1", "s2", "s3"]
    assert len(list((tmp_path / "segments").glob("*.parquet"))) == 2


def test_the_first_rows_are_saved_soon_and_later_files_grow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against a short job that a kill leaves with nothing, and a long one in crumbs."""
    now = 0.0
    monkeypatch.setattr("actors.rowfiles.time.monotonic", lambda: now)
    ledger = Ledger(str(tmp_path), Progress(), set())
    written = []
    for second in range(600):
        now = float(second)
        ledger.add_segment(_row(second))
        written.append(len(list((tmp_path / "segments").glob("*.parquet"))))
    assert written[3] == 1
    assert 6 <= written[-1] <= 12


def test_whether_workers_may_begin_is_what_was_said_last(tmp_path: Path) -> None:
    """Guards against workers that begin with a ledger which has begun anew and heard nothing."""
    ledger = Ledger(str(tmp_path), Progress(), set())
    assert not ledger.ready()
    ledger.progress(False)
    assert not ledger.ready()
    ledger.progress(True)
    assert ledger.ready()
